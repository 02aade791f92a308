import fc from 'fast-check'
import t from 'tap'
import { decodeSavedSyn, hasPayload, tcpHeaderAt } from '../../lib/kernel/tcp-header'
import { createEndpoint } from '../../lib/kernel/sockaddr'
import { findToa, isExperiment } from '../../lib/sources/toa-option'
import { numRuns, plainOf, textOf } from '../trust/plain'
import { format, guarded, options, packet, plainSender, plainTcp, plainToa, TCP, withTails } from './plain-syn'

t.setTimeout(0)

t.test('the sender of a SYN: any bytes, of any length', async (t) => {
  let senders = 0
  fc.assert(fc.property(packet, (bytes) => {
    const expected = plainSender(Buffer.from(bytes))
    for (const given of [...withTails(bytes), guarded(bytes)]) {
      const into = { ...createEndpoint(), port: -1 }
      const untouched = { ...into }
      const found = decodeSavedSyn(given, bytes.length, into)
      if (found !== (expected !== undefined)) throw new Error(`${found} instead of ${expected}`)
      if (!found && JSON.stringify(into) !== JSON.stringify(untouched)) throw new Error('it was written to')
      if (found && `${textOf(plainOf(into))} ${into.port}` !== expected) throw new Error(`${textOf(plainOf(into))} ${into.port} instead of ${expected}`)
      const at = tcpHeaderAt(given, bytes.length)
      const segment = plainTcp(Buffer.from(bytes))
      if (at !== (segment === undefined ? -1 : bytes.length - segment.length)) throw new Error(`TCP at ${at}`)
    }
    if (expected !== undefined) senders++
  }), { numRuns })
  t.ok(senders > numRuns / 10, `${senders} of ${numRuns} had a sender`)
})

t.test('a mapped address in an IPv6 header stays IPv6', async (t) => {
  const bytes = Buffer.alloc(60)
  bytes[0] = 6 << 4
  bytes[6] = TCP
  bytes.write('00000000000000000000ffff0a000002', 8, 'hex')
  const into = createEndpoint()
  t.ok(decodeSavedSyn(bytes, bytes.length, into))
  t.same(plainOf(into), { family: 'IPv6', value: 0xffff0a000002n })
})

t.test('headers of another version of IP are none', async (t) => {
  for (let version = 0; version < 16; version++) {
    const bytes = Buffer.alloc(60)
    bytes[0] = version << 4 | 5
    bytes[version === 4 ? 9 : 6] = TCP
    t.equal(tcpHeaderAt(bytes, bytes.length), version === 4 ? 20 : version === 6 ? 40 : -1, `version ${version}`)
  }
})

t.test('data behind the headers of a SYN, by the length in its IP header', async (t) => {
  for (const [version, tcp, lengthAt, before] of [[4, 20, 2, 0], [6, 40, 4, 40]] as const) {
    for (const words of [5, 6, 15]) {
      const bytes = Buffer.alloc(tcp + words * 4)
      bytes[0] = version << 4 | 5
      bytes[tcp + 12] = words << 4
      for (const data of [0, 1, 255, 256, 1400]) {
        bytes.writeUInt16BE(bytes.length + data - before, lengthAt)
        t.equal(hasPayload(bytes, tcp), data > 0, `IPv${version}, ${words} words, ${data} bytes`)
      }
    }
  }
})

t.test("an ordinary kind is TOA with any client's port, an experimental one is not with Fast Open's number", async (t) => {
  const magic = 0xf989
  for (const kind of [200, 252, 253, 254]) {
    const option = Uint8Array.of(kind, 8, magic >> 8, magic & 255, 203, 0, 113, 7)
    const into = createEndpoint()
    const reason = findToa(option, 0, option.length, false, [{ kind, length: 8, family: 'IPv4', position: 'first' }], into)
    t.same([reason, into.port], kind < 253 ? [undefined, magic] : ['no-option', 0], String(kind))
  }
})

t.test('the experiments of others', async (t) => {
  const smc = [0xe2, 0xd4, 0xc3, 0xd9]
  t.ok(isExperiment(Uint8Array.of(254, 6, ...smc), 0), 'SMC')
  t.notOk(isExperiment(Uint8Array.of(254, 8, ...smc, 0, 0), 0), 'longer than it is')
  t.notOk(isExperiment(Uint8Array.of(254, 6, 0xe2, 0xd4, 0xc3, 0xd8), 0), 'another number')
  t.notOk(isExperiment(Uint8Array.of(252, 6, ...smc), 0), 'of an ordinary kind')
  t.ok(isExperiment(Uint8Array.of(253, 4, 0xf9, 0x89, 0, 0), 0), 'Fast Open')
})

t.test('nothing behind the end of the options counts', async (t) => {
  const toa = [254, 8, 0, 80, 203, 0, 113, 7]
  const formats = [{ kind: 254, length: 8, family: 'IPv4', position: 'last' } as const]
  // The end, and what would be its length if it were an option of its own.
  const bytes = Uint8Array.of(0, 2, ...toa)
  t.equal(findToa(bytes, 0, bytes.length, false, formats, createEndpoint()), 'no-option')
})

t.test('of two that say the same, the one that the balancer appended is its own', async (t) => {
  const toa = [254, 8, 0, 80, 203, 0, 113, 7]
  const bytes = Uint8Array.of(...toa, 2, 4, 5, 180, ...toa)
  const find = (position: 'first' | 'last') => {
    const into = createEndpoint()
    const reason = findToa(bytes, 0, bytes.length, false, [{ kind: 254, length: 8, family: 'IPv4', position }], into)
    return reason ?? textOf(plainOf(into))
  }
  t.equal(find('last'), '203.0.113.7')
  t.equal(find('first'), '203.0.113.7')
})

t.test('TOA among the options of a SYN: any bytes, of any length', async (t) => {
  const results = new Map<string, number>()
  fc.assert(fc.property(options, fc.boolean(), fc.uniqueArray(format, { minLength: 1, maxLength: 3, selector: ({ kind, length }) => `${kind}/${length}` }), (bytes, payload, formats) => {
    const expected = plainToa(Buffer.from(bytes), payload, formats)
    for (const given of [...withTails(bytes), guarded(bytes)]) {
      const into = createEndpoint()
      const reason = findToa(given, 0, bytes.length, payload, formats, into)
      const result = reason ?? `${textOf(plainOf(into))} ${into.port}`
      if (result !== expected) throw new Error(`${result} instead of ${expected}`)
    }
    const kind = expected.includes(' ') ? 'claim' : expected
    results.set(kind, (results.get(kind) ?? 0) + 1)
  }), { numRuns })
  for (const kind of ['claim', 'no-option', 'ambiguous', 'syn-payload', 'out-of-place', 'no-room']) t.ok(results.get(kind)! > numRuns / 1000, `${kind}: ${results.get(kind)}`)
})
