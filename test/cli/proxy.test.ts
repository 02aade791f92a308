import t from 'tap'
import { describeProxyBytes } from '../../lib/cli/proxy'
import { badHeaders, goodHeaders } from '../proxy/headers'

const bytesOf = (name: string) => [...goodHeaders, ...badHeaders].find((header) => header.name === name)!.bytes
const describe = (name: string) => describeProxyBytes(bytesOf(name))

t.test('what a header holds', async (t) => {
  t.strictSame(describe('v1 TCP4'), [
    'PROXY version 1, TCP4, 47 bytes',
    '  source       203.0.113.7:51234',
    '  destination  198.51.100.1:443'
  ])
  t.strictSame(describeProxyBytes(Buffer.concat([bytesOf('v2 TCP over IPv6'), Buffer.from('GET /')])), [
    'PROXY version 2, PROXY, TCP over IPv6, 52 bytes',
    '  source       [2001:db8::7]:51234',
    '  destination  [2001:db8:1::1]:443',
    "  then 5 bytes of the client's data"
  ])
  const nobody = "  names no client: the answer is the sender's own address"
  t.strictSame(describe('v1 UNKNOWN'), ['PROXY version 1, UNKNOWN, 15 bytes', nobody])
  t.strictSame(describe('v2 LOCAL, the health check of AWS'), ['PROXY version 2, LOCAL, TCP over IPv4, 100 bytes', nobody])
  t.strictSame(describe('v2 LOCAL of no known family, with anything'), ['PROXY version 2, LOCAL, unknown family, 39 bytes', nobody])
  t.strictSame(describe('v2 UNSPEC'), ['PROXY version 2, PROXY, UNSPEC, 16 bytes', nobody])
  t.strictSame(describe('v2 UNIX datagram with a TLV'), [
    'PROXY version 2, PROXY, UNIX datagram, 244 bytes', nobody, '  TLV 0x02, authority, 9 bytes: "a.example"'
  ])
  t.match(describe('v2 port 0'), [/PROXY/, /source {7}203\.0\.113\.7$/, /destination {2}198\.51\.100\.1$/])
})

t.test('TLVs, each in its line', async (t) => {
  const tlvs = (name: string) => describe(name).slice(3)
  t.strictSame(tlvs('v2 ALPN, authority, unique id and namespace'), [
    '  TLV 0x01, ALPN, 2 bytes: "h2"',
    '  TLV 0x02, authority, 15 bytes: "bücher.example"',
    '  TLV 0x05, unique id, 4 bytes: 0001feff',
    '  TLV 0x30, network namespace, 4 bytes: "blue"'
  ])
  t.strictSame(tlvs('v2 the VPC endpoint of AWS, with a checksum').map((line) => line.replace(/: [0-9a-f]{8},/, ': SUM,')), [
    '  TLV 0x03, CRC32C, 4 bytes: SUM, correct',
    '  TLV 0xea, AWS, 23 bytes: "vpce-08d2bf15fac5001c9"',
    `  TLV 0x04, padding, 20 bytes: ${'00'.repeat(20)}`
  ])
  t.strictSame(tlvs('v2 the link of Azure'), ['  TLV 0xee, Azure, 5 bytes: 553665985'])
  t.strictSame(tlvs('v2 TLS without a certificate, as HAProxy writes it'), [
    '  TLV 0x20, TLS, 15 bytes: {"client":1,"verified":false,"version":"TLSv1.2","tlvs":[]}'
  ])
  t.match(tlvs('v2 TLVs that are unknown, repeated or not what they should be'), [
    '  TLV 0x00, unknown, 0 bytes: empty', /"h2"$/, /"h3"$/, '  TLV 0x02, authority, 1 bytes: ff', /AWS, 2 bytes: 0278$/
  ])
})

t.test('what a stranger wrote cannot steer the terminal', async (t) => {
  const [, , , line] = describeProxyBytes(Buffer.concat([
    Buffer.from('0d0a0d0a000d0a515549540a21110018cb007107c6336401c82201bb020009', 'hex'), Buffer.from('\x1b[2J\u009b\u202e')
  ]))
  t.equal(line, '  TLV 0x02, authority, 9 bytes: "\\u001b[2J\\u{9b}\\u{202e}"')
  for (const { bytes, name } of [...goodHeaders, ...badHeaders]) {
    t.ok(describeProxyBytes(bytes).every((line) => /^[\x20-\x7e\u00a1-\uffff]*$/.test(line)), name)
  }
})

t.test('what is wrong, and at which byte', async (t) => {
  t.strictSame(describe('v1 port 080'), [
    'proxy-malformed at byte 42: not a port',
    '  bytes 34 to 46: 31 20 35 31 32 33 34 20 30 38 30 0d 0a  1 51234 080..'
  ])
  t.strictSame(describe('HTTP/1'), [
    'proxy-missing at byte 0: not the start of a PROXY header',
    '  bytes 0 to 15: 47 45 54 20 2f 20 48 54 54 50 2f 31 2e 31 0d 0a  GET / HTTP/1.1..'
  ])
  t.match(describe('v2 a wrong checksum')[0], /^proxy-checksum at byte 31: the CRC32C checksum is [0-9a-f]{8}, but should be [0-9a-f]{8}$/)
  for (const { name, bytes, reason, at } of badHeaders) t.match(describeProxyBytes(bytes)[0], `${reason} at byte ${at}: `, name)
})

t.test('what is not complete', async (t) => {
  t.strictSame(describeProxyBytes(Buffer.alloc(0)), ['no bytes instead of a PROXY header'])
  t.strictSame(describeProxyBytes(Buffer.from('PROXY TCP')), [
    'the start of a PROXY header, 9 bytes: the rest did not arrive', '  50 52 4f 58 59 20 54 43 50  PROXY TCP'
  ])
})
