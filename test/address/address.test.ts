import t from 'tap'
import fc from 'fast-check'
import net from 'node:net'
import { type Address, canonicalAddress, formatIPv4, formatIPv6, sameAddress } from '../../lib/address/address'

const word = fc.integer({ min: -0x80000000, max: 0xffffffff })
// Mostly zero groups, so that runs of every length and place come up.
const group = fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.integer({ min: 0, max: 0xffff }))

t.test('IPv4 text is dotted decimal of the four octets', async (t) => {
  t.doesNotThrow(() => fc.assert(fc.property(word, (w) => {
    const octets = new Uint8Array(4)
    new DataView(octets.buffer).setInt32(0, w)
    return formatIPv4(w) === octets.join('.')
  })))
  t.equal(formatIPv4(0xcb007107 | 0), '203.0.113.7')
  t.equal(formatIPv4(-1), '255.255.255.255')
})

t.test('IPv6 text is what the C library writes', async (t) => {
  t.doesNotThrow(() => fc.assert(fc.property(fc.tuple(group, group, group, group, group, group, group, group), (g) => {
    const pair = (at: number) => (g[at] as number) << 16 | (g[at + 1] as number)
    const ours = formatIPv6(pair(0), pair(2), pair(4), pair(6))
    const theirs = new net.SocketAddress({ address: g.map((x) => x.toString(16)).join(':'), family: 'ipv6' }).address
    // inet_ntop(3) still writes the deprecated IPv4-compatible addresses with dots.
    return theirs.includes('.') || ours === theirs
  }), { numRuns: 10_000 }))
})

t.test('every group is written without leading zeros', async (t) => {
  const wrong: number[] = []
  for (let group = 0; group < 0x10000; group++) {
    const text = group.toString(16)
    if (formatIPv6(0x10000 | group, 0x10001, 0x10001, group << 16 | 1) !== `1:${text}:1:1:1:1:${text}:1`) wrong.push(group)
    if (group > 0 && formatIPv6(group << 16 | 1, 0x10001, 0x10001, 0x10001) !== `${text}:1:1:1:1:1:1:1`) wrong.push(group)
  }
  t.same(wrong, [])
})

t.test('IPv6 text follows RFC 5952 section 4', async (t) => {
  t.equal(formatIPv6(0x20010db8, 0, 0, 1), '2001:db8::1')
  t.equal(formatIPv6(0x20010db8, 0, 0x00010000, 1), '2001:db8::1:0:0:1', 'the first of two equal runs')
  t.equal(formatIPv6(0x20010db8, 0x00000001, 0x00010001, 0x00010001), '2001:db8:0:1:1:1:1:1', 'a single zero group stands')
  t.equal(formatIPv6(0, 0, 0, 0), '::')
  t.equal(formatIPv6(0, 0, 0, 1), '::1')
  t.equal(formatIPv6(0x00010000, 0, 0, 0), '1::')
  t.equal(formatIPv6(0, 0, 0, 0x01020304), '::102:304')
  t.equal(formatIPv6(0xfe800000, 0, 0xabcdef, 0xABCD), 'fe80::ab:cdef:0:abcd')
})

t.test('two addresses are the same only in every word, and in one family', async (t) => {
  const address: Address = { family: 'IPv6', w0: 0, w1: 0, w2: 0, w3: 7 }
  t.ok(sameAddress(address, { ...address }))
  for (const other of [{ family: 'IPv4' }, { w0: 1 }, { w1: 1 }, { w2: 1 }, { w3: 1 }] as const) {
    t.notOk(sameAddress(address, { ...address, ...other }), JSON.stringify(other))
  }
})

t.test('text from elsewhere becomes canonical', async (t) => {
  t.equal(canonicalAddress('203.0.113.7'), '203.0.113.7')
  t.equal(canonicalAddress('::ffff:203.0.113.7'), '203.0.113.7')
  t.equal(canonicalAddress('::FFFF:cb00:7107'), '203.0.113.7')
  t.equal(canonicalAddress('::203.0.113.7'), '::cb00:7107', 'compatible is not mapped')
  t.equal(canonicalAddress('2001:0DB8:0:0:0:0:0:1'), '2001:db8::1')
  t.equal(canonicalAddress('fe80::1%eth0'), 'fe80::1')
  t.equal(canonicalAddress('ffff:ffff:ffff:ffff:ffff:fffe:255.255.255.255'), 'ffff:ffff:ffff:ffff:ffff:fffe:ffff:ffff', 'the longest')
  t.equal(canonicalAddress('0:0:1:0:0:ffff:203.0.113.7'), '::1:0:0:ffff:cb00:7107', 'nor is one with a bit before ::ffff:')
  t.equal(canonicalAddress('1::ffff:203.0.113.7'), '1::ffff:cb00:7107')
  t.equal(canonicalAddress('203.0.113.\u0137'), undefined, 'a character whose lower 8 bits are a digit')
  for (const text of [undefined, null, 7, {}, '', 'unknown', '1.2.3.4:443', '[::1]', '1.2.3', '<script>', '%', '::1::']) {
    t.equal(canonicalAddress(text), undefined, `${text}`)
  }
})
