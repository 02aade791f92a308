import fc from 'fast-check'
import t from 'tap'
import type { EncodeProxyHeaderOptions } from 'fastify-real-ip'
import { formatAddress } from '../../lib/address/address'
import { encodeProxyHeader } from '../../lib/sources/proxy-encode'
import { goodHeaders } from '../proxy/headers'
import { addressOf, anyAddress, numRuns, textOf, unmapped } from '../trust/plain'
import { plainDescription, plainProxy } from './plain-proxy'

const bytesOf = (name: string) => goodHeaders.find((header) => header.name === name)!.bytes.toString('hex')
const encoded = (options?: EncodeProxyHeaderOptions) => encodeProxyHeader(options).toString('hex')

const source = { address: '203.0.113.7', port: 51234 }
const destination = { address: '198.51.100.1', port: 443 }
const source6 = { address: '2001:DB8:0::7', port: 51234 }
const destination6 = { address: '2001:db8:1::1', port: 443 }

t.test('headers are written as they were by hand', async (t) => {
  t.equal(encoded({ source, destination }), bytesOf('v2 TCP over IPv4'))
  t.equal(encoded({ version: 2, source: source6, destination: destination6 }), bytesOf('v2 TCP over IPv6'))
  t.equal(encoded({ version: 1, source, destination }), bytesOf('v1 TCP4'))
  t.equal(encoded({ version: 1, source: source6, destination: destination6 }), bytesOf('v1 TCP6'))
  for (const nobody of [encoded(), encoded({}), encoded({ tlvs: [], checksum: false })]) t.equal(nobody, bytesOf('v2 LOCAL'))
  t.equal(encoded({ version: 1 }), bytesOf('v1 UNKNOWN'))
  t.equal(encoded({ version: 1, checksum: false, tlvs: [] }), bytesOf('v1 UNKNOWN'))
})

t.test('addresses as Node.js has them are IPv4 where they are', async (t) => {
  const mapped = { source: { address: '::ffff:203.0.113.7', port: 51234 }, destination: { address: '::ffff:c633:6401', port: 443 } }
  t.equal(encoded(mapped), bytesOf('v2 TCP over IPv4'))
  t.equal(encoded({ ...mapped, source }), bytesOf('v2 TCP over IPv4'))
})

t.test('TLVs are given as bytes or hexadecimal text', async (t) => {
  const expected = bytesOf('v2 ALPN, authority, unique id and namespace')
  const tlvs = [
    { type: 1, value: Buffer.from('h2') }, { type: 2, value: Buffer.from('bücher.example') }, { type: 5, value: '0001FEff' },
    { type: 0x30, value: new Uint8Array(Buffer.from('blue')) }
  ]
  t.equal(encoded({ source, destination, tlvs }), expected)
  t.equal(encoded({ source, destination, tlvs: [] }), bytesOf('v2 TCP over IPv4'))
})

t.test('with a checksum', async (t) => {
  const length = 4096 - 16 - 12 - 7 - 3
  t.equal(encoded({ source, destination, tlvs: [{ type: 4, value: Buffer.alloc(length, 0x55) }], checksum: true }), bytesOf('v2 4,096 bytes, with a checksum at the end'))
  t.same(plainProxy(encodeProxyHeader({ checksum: true })), { length: 23, version: 2, ends: undefined, tlvs: [] })
})

t.test('whatever is encoded says what it was given', async (t) => {
  const port = fc.nat({ max: 65535 })
  const tlv = fc.record({ type: fc.nat({ max: 255 }).filter((type) => type !== 3), value: fc.uint8Array({ maxLength: 20 }) })
  let checked = 0
  fc.assert(fc.property(anyAddress, anyAddress, port, port, fc.array(tlv, { maxLength: 4 }), fc.constantFrom(1, 2), fc.boolean(), (from, to, fromPort, toPort, tlvs, version, checksum) => {
    if (unmapped(from).family !== unmapped(to).family) return
    const ends = { source: { address: formatAddress(addressOf(from)), port: fromPort }, destination: { address: formatAddress(addressOf(to)), port: toPort } }
    const header = encodeProxyHeader({ version, ...ends, ...(version === 2 && { tlvs, checksum }) })
    const plain = plainProxy(header)
    if (typeof plain === 'string') throw new Error(plain)
    const expected = [`${textOf(unmapped(from))} ${fromPort}`, `${textOf(unmapped(to))} ${toPort}`]
    t.strictSame([plain.length, plain.version, plain.ends], [header.length, version, expected])
    if (version === 2) {
      t.strictSame(plainDescription(plain.tlvs), plainDescription(tlvs.map(({ type, value }) => [type, Buffer.from(value)])))
      t.equal(plain.tlvs.some(([type]) => type === 3), checksum)
    }
    checked++
  }), { numRuns: Math.min(numRuns, 500) })
  t.ok(checked > 100)
})

t.test('what cannot be encoded is an error that says what to write', async (t) => {
  const wrong: Array<[options: unknown, message: RegExp]> = [
    [null, /takes an object like \{ source: \{ address: '203\.0\.113\.7', port: 51234 \}, … \}, not null/],
    ['203.0.113.7', /takes an object/],
    [{ src: source }, /there is no option 'src'; the options are 'version', 'source', 'destination', 'tlvs', 'checksum'/],
    [{ version: 3 }, /'version' must be 1 or 2, not 3/],
    [{ version: '2' }, /'version' must be 1 or 2, not '2'/],
    [{ source }, /give both 'source' and 'destination', or neither/],
    [{ destination }, /give both 'source' and 'destination', or neither/],
    [{ source, destination: destination6 }, /'source' is IPv4 and 'destination' is IPv6; give two addresses of one family/],
    [{ source: '203.0.113.7', destination }, /'source' must be like \{ address: '203\.0\.113\.7', port: 51234 \}, not '203/],
    [{ source: { address: 'a.example', port: 1 }, destination }, /'source\.address' must be an IP address without zone.* not 'a\.example'/],
    [{ source, destination: { port: 1 } }, /'destination\.address' must be an IP address .* not undefined/],
    [{ source: { address: 'fe80::1%eth0', port: 1 }, destination: destination6 }, /'source\.address' must be an IP address without zone/],
    [{ source: { address: '203.0.113.7' }, destination }, /'source\.port' must be a whole number from 0 to 65535, not undefined/],
    [{ source, destination: { ...destination, port: 65536 } }, /'destination\.port' must be a whole number from 0 to 65535, not 65536/],
    [{ source: { ...source, port: -1 }, destination }, /'source\.port'/],
    [{ source: { ...source, port: 1.5 }, destination }, /'source\.port'/],
    [{ tlvs: { type: 1, value: '' } }, /'tlvs' must be a list like/],
    [{ tlvs: ['h2'] }, /'tlvs\[0\]' must be like \{ type: 1, value: Buffer\.from\('h2'\) \}, not 'h2'/],
    [{ tlvs: [{ type: 1, value: '00' }, { type: 256, value: '' }] }, /'tlvs\[1\]' needs a 'type' from 0 to 255, not 256/],
    [{ tlvs: [{ type: -1, value: '' }] }, /'tlvs\[0\]' needs a 'type'/],
    [{ tlvs: [{ type: 1, value: 'h2' }] }, /needs a 'value' of bytes or of hexadecimal text, not 'h2'; write text as Buffer\.from\(text\)/],
    [{ tlvs: [{ type: 1, value: 'abc' }] }, /hexadecimal text/],
    [{ tlvs: [{ type: 1 }] }, /needs a 'value' of bytes or of hexadecimal text, not undefined/],
    [{ tlvs: [{ type: 4, value: Buffer.alloc(65536) }] }, /'tlvs\[0\]' has 65536 bytes; a TLV has at most 65535/],
    [{ tlvs: [{ type: 4, value: Buffer.alloc(4078) }] }, /the header would have 4097 bytes, but receivers read at most 4096; remove some of 'tlvs'/],
    [{ checksum: 'yes' }, /'checksum' must be true or false, not 'yes'/],
    [{ version: 1, checksum: true }, /version 1 has no TLVs and no checksum; remove .* or use version: 2/],
    [{ version: 1, source, destination, tlvs: [{ type: 1, value: '' }] }, /version 1 has no TLVs/]
  ]
  for (const [options, message] of wrong) {
    t.throws(() => encodeProxyHeader(options as EncodeProxyHeaderOptions), { code: 'FST_REAL_IP_INVALID_OPTION', message }, String(message))
  }
  try {
    encodeProxyHeader({ version: 7 as 1 })
  } catch (error) {
    t.ok(error instanceof TypeError)
  }
})
