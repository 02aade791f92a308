import assert from 'node:assert/strict'
import fc from 'fast-check'
import t from 'tap'
import { formatAddress, parseAddress } from '../../lib/address/address'
import { crc32c } from '../../lib/sources/crc32c'
import { decodeProxyHeader, type ProxyHeader } from '../../lib/sources/proxy-header'
import { describeProxyHeader } from '../../lib/sources/proxy-tlvs'
import { guarded } from '../kernel/plain-syn'
import { badHeaders, goodHeaders } from '../proxy/headers'
import { numRuns } from '../trust/plain'
import { plainCrc32c, plainProxy } from './plain-proxy'

t.test('there are enough headers, each with a name of its own', async (t) => {
  t.ok(goodHeaders.length >= 27, `${goodHeaders.length} good`)
  t.ok(badHeaders.length >= 33, `${badHeaders.length} bad`)
  const names = [...goodHeaders, ...badHeaders].map(({ name }) => name)
  t.equal(new Set(names).size, names.length)
})

const behind = ['', 'GET / HTTP/1.1\r\nHost: a.example\r\n\r\n', 'PROXY TCP4 192.0.2.66 192.0.2.1 1 2\r\n', '\0\r\n\xff'].map((text) => Buffer.from(text, 'latin1'))

/** Decodes the bytes, with others behind them that do not count, and with an end that is guarded: the same each time. */
function decode (bytes: Buffer): ReturnType<typeof decodeProxyHeader> {
  const [first, ...others] = [
    decodeProxyHeader(guarded(bytes), bytes.length),
    ...behind.map((more) => decodeProxyHeader(Buffer.concat([bytes, more]), bytes.length))
  ]
  for (const other of others) assert.deepEqual(other, first)
  return first as ReturnType<typeof decodeProxyHeader>
}

function decodeGood (bytes: Buffer): ProxyHeader {
  const decoded = decode(bytes)
  if (decoded === 'more' || 'reason' in decoded) throw new Error(JSON.stringify(decoded))
  return decoded
}

const endOf = (endpoint: ProxyHeader['source']) => endpoint && [formatAddress(endpoint), endpoint.port]

for (const { name, bytes, version, source, destination, said } of goodHeaders) {
  t.test(name, async (t) => {
    for (const more of behind) {
      const header = decodeGood(Buffer.concat([bytes, more]))
      t.strictSame([header.length, header.version, header.local, endOf(header.source), endOf(header.destination)],
        [bytes.length, version, source === undefined, source, destination])
      t.strictSame(header.source, source && { ...parseAddress(source[0]), port: source[1] }, 'sameAddress() can compare it')
      t.strictSame(header.destination, destination && { ...parseAddress(destination[0]), port: destination[1] })
      t.strictSame(describeProxyHeader(header), {
        version,
        local: source === undefined,
        ...(destination !== undefined && { destination: { address: destination[0], port: destination[1] || undefined } }),
        ...said
      })
    }
  })

  t.test(`${name}: every prefix means 'more'`, async (t) => {
    const others = [...bytes.keys()].filter((length) => decodeProxyHeader(guarded(bytes.subarray(0, length)), length) !== 'more')
    t.same(others, [])
  })
}

for (const { name, bytes, reason, at } of badHeaders) {
  t.test(name, async (t) => {
    const fault = decode(bytes)
    t.match(fault, { reason, at, what: /\w/ })
    for (const more of behind) t.strictSame(decode(Buffer.concat([bytes, more])), fault)
    for (const length of bytes.keys()) {
      const early = decodeProxyHeader(guarded(bytes.subarray(0, length)), length)
      if (early !== 'more') assert.deepEqual(early, fault, `${length} bytes`)
    }
  })
}

t.test('the copy of the TLVs outlives the bytes', async (t) => {
  const { bytes } = goodHeaders.find(({ name }) => name.includes('GCP'))!
  const given = Buffer.from(bytes)
  const header = decodeProxyHeader(given, given.length) as ProxyHeader
  given.fill(0xff)
  t.equal(describeProxyHeader(header).gcpPscConnectionId, '18446744072646845442')
  t.equal(formatAddress(header.source!), '203.0.113.7')
})

/** Every object in it, itself included, and every other value. */
function walk (value: unknown): { objects: object[], leaves: unknown[] } {
  if (typeof value !== 'object' || value === null) return { objects: [], leaves: [value] }
  const parts = Object.values(value).map(walk)
  return { objects: [value, ...parts.flatMap(({ objects }) => objects)], leaves: parts.flatMap(({ leaves }) => leaves) }
}

t.test('what is described is frozen, and has only what JSON has', async (t) => {
  for (const { name, bytes } of goodHeaders) {
    const { objects, leaves } = walk(describeProxyHeader(decodeGood(bytes)))
    t.ok(objects.every((part) => Object.isFrozen(part)), name)
    // Port 0 is undefined, and so left out of JSON.
    t.ok(leaves.every((leaf) => ['string', 'number', 'boolean', 'undefined'].includes(typeof leaf)), name)
  }
})

t.test('CRC32C is that of RFC 3720, and of the second implementation', async (t) => {
  // RFC 3720, appendix B.4.
  for (const [bytes, expected] of [
    [Buffer.alloc(32), 0x8a9136aa], [Buffer.alloc(32, 0xff), 0x62a8ab43], [Buffer.from(Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e]
  ] as const) t.equal(crc32c(bytes, bytes.length, bytes.length), expected)
  fc.assert(fc.property(fc.uint8Array({ minLength: 4, maxLength: 200 }), fc.nat(), (bytes, where) => {
    const at = where % (bytes.length - 3)
    const zeroed = Uint8Array.from(bytes).fill(0, at, at + 4)
    return crc32c(bytes, bytes.length, at).toString(16).padStart(8, '0') === plainCrc32c(zeroed)
  }), { numRuns: Math.min(numRuns, 2000) })
})

t.test('every change of one byte is judged as the second implementation judges it', async (t) => {
  let cases = 0
  for (const { bytes, name } of goodHeaders.filter(({ bytes }) => bytes.length < 300)) {
    for (const at of bytes.keys()) {
      for (const value of [0, 0x0a, 0x0d, 0x20, 0x30, 0x3a, 0x41, 0x61, 0x67, 0xff, bytes[at]! ^ 1, bytes[at]! + 1 & 255]) {
        const changed = Buffer.from(bytes)
        changed[at] = value
        const decoded = decodeProxyHeader(changed, changed.length)
        const plain = plainProxy(changed)
        const outcome = decoded === 'more' ? decoded : 'reason' in decoded ? decoded.reason : decoded.length
        if (outcome !== (typeof plain === 'string' ? plain : plain.length)) t.fail(`${name}, byte ${at} made ${value}: ${outcome}`)
        cases++
      }
    }
  }
  t.ok(cases > 10_000, `${cases} cases`)
})
