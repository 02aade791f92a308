import { endianness } from 'node:os'
import { stripVTControlCharacters } from 'node:util'
import t from 'tap'
import { Handshakes } from '../../lib/cli/capture'
import { type Circumstances, drawSeen, endpoint, noteOn } from '../../lib/cli/seen'
import type { Asked, Seen } from '../../lib/cli/sighting'
import { Modules } from '../../lib/cli/modules'
import { readSegmentOptions } from '../../lib/cli/segment-options'
import { ACK, addressBytes, encodeSegment, PSH, SYN } from '../player/packet'
import {
  eol, fastOpenCookie, fastOpenExperimental, linuxSynOptions, mss, nop, option, smc, toa, withLength, type Option
} from '../player/tcp-options'

const PORT = 8080

function segment (options: readonly Option[], flags = SYN, { source = '10.0.0.2', sourcePort = 40_000, port = PORT } = {}): Buffer {
  const family = source.includes(':') ? 'IPv6' : 'IPv4'
  return encodeSegment({
    source: addressBytes(source),
    sourcePort,
    destination: addressBytes(family === 'IPv6' ? 'fd00::1' : '10.0.0.1'),
    destinationPort: port,
    sequence: 1,
    acknowledgment: 0,
    flags,
    window: 65535,
    options: Buffer.concat(options),
    payload: Buffer.alloc(0)
  })
}

function read (...options: Option[]) {
  const bytes = segment(options)
  return readSegmentOptions(bytes, bytes.length)
}

t.test('the options of a SYN, by name', async (t) => {
  t.same(read(...linuxSynOptions(7)), [
    { kind: 2, length: 4, name: 'mss', value: '1460' },
    { kind: 4, length: 2, name: 'sackOK' },
    { kind: 8, length: 10, name: 'ts', value: '7/0' },
    { kind: 1, length: 1, name: 'nop' },
    { kind: 3, length: 3, name: 'wscale', value: '7' }
  ])
  t.same(read(), [])
  t.same(read(fastOpenCookie(Buffer.of(1, 2)), mss(9)), [
    { kind: 34, length: 4, name: 'tfo', value: '0102' }, { kind: 2, length: 4, name: 'mss', value: '9' }
  ])
  t.same(read(option(77, Buffer.of(0xab)), withLength(mss(1), 3)), [
    { kind: 77, length: 3, name: 'kind 77', value: 'ab' },
    { kind: 2, length: 3, name: 'mss', value: '00' },
    { kind: 1, length: 1, name: 'nop' }
  ], 'what is not known, or is not as it should be, in hexadecimal digits')
  const names = { 2: 'mss', 3: 'wscale', 4: 'sackOK', 5: 'sack', 8: 'ts', 19: 'md5', 28: 'uto', 29: 'tcp-ao', 30: 'mptcp', 34: 'tfo', 69: 'eno' }
  for (const [kind, name] of Object.entries(names)) t.equal(read(option(Number(kind), Buffer.of()))[0]?.name, name)
  t.same(read(mss(1), eol, toa(254, '203.0.113.7', 1)), [{ kind: 2, length: 4, name: 'mss', value: '1' }], 'nothing behind the end of the list')

  const headers = Buffer.concat([segment([mss(1)]), Buffer.from([254, 8])])
  t.same(readSegmentOptions(headers, headers.length).length, 1, 'nothing behind the header')
})

t.test('options that cannot be whole end the walk', async (t) => {
  for (const length of [0, 1, 40]) {
    const [first, second, third] = read(mss(1), withLength(toa(254, '203.0.113.7', 1), length))
    t.match(first, { name: 'mss' })
    t.match(second, { kind: 254, name: 'malformed', length: 8, value: /^fe/ })
    t.equal(third, undefined)
  }
  t.match(read(nop, nop, nop, Buffer.of(254)).at(-1), { kind: 254, length: 1, name: 'malformed', value: 'fe' })
})

t.test('TOA of all known kinds, with what it means', async (t) => {
  const v4 = { name: 'toa', address: '203.0.113.7', port: 51234 }
  const v6 = { name: 'toa', address: '2001:db8::7', port: 51234 }
  const of4 = (kind: number, ...rest: Uint8Array[]) => option(kind, toa(kind, '203.0.113.7', 51234).subarray(2), ...rest)
  const of6 = (kind: number, ...rest: Uint8Array[]) => option(kind, toa(kind, '2001:db8::7', 51234).subarray(2), ...rest)
  const vpc = Buffer.of(0, 0, 7, 0)
  const cases: Array<[given: Option, is: object]> = [
    [of4(254), { ...v4, kind: 254, length: 8, writtenBy: 'Alibaba, DPVS, Huawei, UCloud', format: '254/8/IPv4/first' }],
    [of6(253), { ...v6, kind: 253, length: 20, writtenBy: 'Alibaba', format: '253/20/IPv6/first' }],
    [of6(254), { ...v6, kind: 254, length: 20, writtenBy: 'DPVS', format: '254/20/IPv6/first' }],
    [of4(200), { ...v4, kind: 200, length: 8, writtenBy: 'UCloud, Tencent', format: '200/8/IPv4/first' }],
    [of4(253), { ...v4, kind: 253, length: 8, writtenBy: 'UCloud, Tencent', format: '253/8/IPv4/first' }],
    [of4(252, vpc, addressBytes('198.51.100.1'), Buffer.of(1, 187, 0, 0)), {
      ...v4, kind: 252, length: 20, writtenBy: 'Alibaba, with the virtual server', virtualServer: { address: '198.51.100.1', port: 443 }, format: '252/20/IPv4/first'
    }],
    [of6(249, vpc, addressBytes('2001:db8::1')), {
      ...v6, kind: 249, length: 40, writtenBy: 'Alibaba, with the virtual server', virtualServer: { address: '2001:db8::1' }, format: '249/40/IPv6/first'
    }]
  ]
  for (const [given, is] of cases) t.same(read(given), [is])

  t.match(read(toa(253, '::ffff:203.0.113.7', 1)), [{ address: '203.0.113.7' }], 'IPv4-mapped')
  const akamai = option(28, Buffer.of(1), addressBytes('203.0.113.7'))
  t.same(read(akamai), [{ kind: 28, length: 7, name: 'toa', address: '203.0.113.7', writtenBy: 'Akamai' }])
  t.match(read(option(28, Buffer.of(2), addressBytes('203.0.113.7'))), [{ name: 'uto' }], 'another version')
  t.match(read(option(28, Buffer.of(1, 2))), [{ name: 'uto', value: '0102' }])
  t.same(read(fastOpenExperimental(Buffer.of(1, 2, 3, 4))), [{ kind: 254, length: 8, name: 'experiment', value: 'f98901020304' }])
  t.match(read(smc), [{ kind: 254, name: 'experiment' }])
  t.same(read(of4(250)), [{ kind: 250, length: 8, name: 'virtual-server', value: '203.0.113.7:51234' }], 'no client')
  t.match(read(option(77, Buffer.of(1), addressBytes('203.0.113.7'))), [{ name: 'kind 77' }], "like Akamai's, of another kind")
})

t.test("an unknown option of TOA's size, with what it would mean", async (t) => {
  const claim = (address: string) => toa(254, address, 51234).subarray(2)
  t.match(read(option(77, claim('203.0.113.7'))), [{ name: 'kind 77', value: /^c822cb007107$/, wouldBe: { address: '203.0.113.7', port: 51234 } }])
  t.match(read(option(252, claim('203.0.113.7'))), [{ name: 'kind 252', wouldBe: { address: '203.0.113.7', port: 51234 } }])
  t.match(read(option(77, claim('2001:db8::7'))), [{ name: 'kind 77', wouldBe: { address: '2001:db8::7', port: 51234 } }])
  for (const other of [option(30, claim('203.0.113.7')), option(77, Buffer.alloc(7)), option(254, Buffer.of(0xf9, 0x89, 1, 2, 3, 4))]) {
    t.notOk('wouldBe' in read(other)[0]!)
  }
})

t.test('a TOA on the SYN that the plugin would not believe has no format', async (t) => {
  const stamp = toa(254, '203.0.113.7', 51234)
  const cases: Array<[options: Option[], refused: string]> = [
    [[stamp, toa(254, '203.0.113.8', 1)], 'ambiguous'],
    [[mss(1), stamp, mss(1)], 'out-of-place'],
    [[stamp, ...Array.from({ length: 28 }, () => nop)], 'no-room'],
    [[toa(254, '0.0.0.0', 1)], 'implausible'],
    [[toa(254, '127.0.0.1', 1)], 'implausible'],
    [[toa(253, 'ff02::1', 1)], 'implausible']
  ]
  for (const [options, refused] of cases) {
    const found = read(...options).find(({ name }) => name === 'toa')
    t.match(found, { refused })
    t.notOk('format' in found!, refused)
  }
  const ack = segment([mss(1), stamp, mss(1)], ACK)
  t.notOk(readSegmentOptions(ack, ack.length).some((option) => 'refused' in option), 'of an ACK nothing is read')
  const local = segment([toa(254, '127.0.0.1', 1)], SYN, { source: '127.0.0.1' })
  t.match(readSegmentOptions(local, local.length), [{ format: '254/8/IPv4/first' }], 'loopback from loopback')
})

t.test('where the TOA stands, for --toa', async (t) => {
  const stamp = toa(254, '203.0.113.7', 51234)
  const formatOf = (...options: Option[]) => read(...options).find(({ name }) => name === 'toa')?.format
  t.equal(formatOf(stamp, mss(1)), '254/8/IPv4/first')
  t.equal(formatOf(mss(1), stamp), '254/8/IPv4/last')
  t.equal(formatOf(mss(1), stamp, nop, nop, eol), '254/8/IPv4/last')
  t.equal(formatOf(nop, nop, nop, nop, stamp, mss(1)), undefined, 'nowhere that a balancer writes')
})

t.test('what completes a handshake, from a packet socket', async (t) => {
  const queue: Buffer[] = []
  let filter: Uint8Array | undefined
  let closed = false
  const packet = new Uint8Array(2048)
  const handshakes = new Handshakes()
  handshakes.open((given) => {
    filter = given
    return {
      packet,
      receive () {
        const next = queue.shift()
        packet.set(next ?? [])
        return next?.length ?? 0
      },
      close: () => { closed = true }
    }
  }, PORT)
  t.equal(filter?.length, 15 * 8)
  t.equal(handshakes.refused, undefined)

  const stamp = toa(254, '203.0.113.7', 51234)
  const peer = { address: '10.0.0.2', port: 40_000 }
  queue.push(segment([mss(1)]), segment([mss(1)]), segment([stamp], ACK), segment([], ACK | PSH), segment([], ACK, { sourcePort: 1 }), Buffer.alloc(28))
  t.match(handshakes.take(peer), [{ address: '203.0.113.7' }], 'the first segment after the SYN')
  t.equal(handshakes.take(peer), null, 'once')
  t.equal(handshakes.take({ ...peer, port: 1 }), null, 'a connection from before')

  queue.push(segment([], ACK), segment([mss(1)]), segment([], ACK))
  t.same(handshakes.take(peer), [], 'the port used again')

  const peer6 = { address: 'fd00::2', port: 40_000 }
  queue.push(segment([mss(1)], SYN, { source: 'fd00::2' }), segment([toa(253, '2001:db8::7', 1)], ACK, { source: 'fd00::2' }))
  t.match(handshakes.take(peer6), [{ address: '2001:db8::7' }])

  for (let sourcePort = 1; sourcePort <= 4097; sourcePort++) queue.push(segment([], SYN, { sourcePort }))
  queue.push(segment([], ACK, { sourcePort: 1 }), segment([], ACK, { sourcePort: 4097 }))
  t.equal(handshakes.take({ ...peer, port: 1 }), null, 'handshakes that are never completed do not add up')
  t.same(handshakes.take({ ...peer, port: 4097 }), [])

  handshakes.close()
  t.ok(closed)
})

t.test('handshakes that overlap are told apart', async (t) => {
  const queue = [
    segment([], SYN, { sourcePort: 1 }), segment([], SYN, { sourcePort: 2 }),
    segment([mss(1)], ACK, { sourcePort: 1 }), segment([mss(2)], ACK, { sourcePort: 2 })
  ]
  const packet = new Uint8Array(2048)
  const handshakes = new Handshakes()
  handshakes.open(() => ({
    packet,
    receive () {
      const next = queue.shift()
      packet.set(next ?? [])
      return next?.length ?? 0
    },
    close: () => {}
  }), PORT)
  t.match(handshakes.take({ address: '10.0.0.2', port: 1 }), [{ value: '1' }])
  t.match(handshakes.take({ address: '10.0.0.2', port: 2 }), [{ value: '2' }])
})

/** Whether a classic BPF program lets a packet pass, as the kernel runs it: a load from behind the end drops it. */
function passes (program: Uint8Array, packet: Uint8Array): boolean {
  const instructions = new DataView(program.buffer, program.byteOffset, program.length)
  const bytes = new DataView(packet.buffer, packet.byteOffset, packet.length)
  const little = endianness() === 'LE'
  let [a, x] = [0, 0]
  for (let at = 0; at < program.length; at += 8) {
    const code = instructions.getUint16(at, little)
    const k = instructions.getUint32(at + 4, little)
    try {
      if (code === 0x30) a = bytes.getUint8(k)
      else if (code === 0x28) a = bytes.getUint16(k)
      else if (code === 0x48) a = bytes.getUint16(x + k)
      else if (code === 0xb1) x = (bytes.getUint8(k) & 15) * 4
      else if (code === 0x54) a = (a & k) >>> 0
      else if (code === 0x15) at += 8 * instructions.getUint8(at + (a === k ? 2 : 3))
      else if (code === 0x06) return k > 0
      else throw new TypeError(`an instruction of code ${code}`)
    } catch (error) {
      if (error instanceof RangeError) return false
      throw error
    }
  }
  throw new TypeError('it runs behind its end')
}

t.test('the packet socket is asked for TCP to the port, and for nothing else', async (t) => {
  let program = new Uint8Array()
  new Handshakes().open((given) => {
    program = new Uint8Array(given)
    return 1
  }, PORT)
  const v4 = segment([])
  const v6 = segment([], SYN, { source: 'fd00::2' })
  t.ok(passes(program, v4))
  t.ok(passes(program, v6))
  t.notOk(passes(program, segment([], SYN, { port: PORT + 1 })), 'another port')
  t.notOk(passes(program, segment([], SYN, { port: PORT + 1, source: 'fd00::2' })), 'another port')
  t.notOk(passes(program, segment([], SYN, { port: 1, sourcePort: PORT })), 'the answer')
  const changed = (bytes: Uint8Array, at: number, value: number) => {
    const copy = Uint8Array.from(bytes)
    copy[at] = value
    return copy
  }
  t.notOk(passes(program, changed(v4, 9, 17)), 'UDP')
  t.notOk(passes(program, changed(v6, 6, 17)), 'UDP')
  t.notOk(passes(program, changed(v4, 0, 0x55)), 'neither IPv4 nor IPv6')
  t.ok(passes(program, Buffer.concat([changed(v4.subarray(0, 20), 0, 0x46), Buffer.alloc(4), v4.subarray(20)])), 'behind IPv4 options')
})

t.test('without a packet socket nothing of it is seen', async (t) => {
  const handshakes = new Handshakes()
  handshakes.open(() => 1, PORT)
  t.equal(handshakes.refused, 'EPERM')
  t.equal(handshakes.take({ address: '10.0.0.2', port: 1 }), null)
  handshakes.close()
})

const peer = { address: '10.0.0.2', port: 40_000, by: 'saved-syn' } as const
const none: Asked[] = [
  { source: 'vtoa', reason: 'ENOPROTOOPT' },
  { source: 'nat64', reason: 'ENOPROTOOPT' },
  { source: 'getpeername', address: '10.0.0.2', port: 40_000 },
  { source: 'saved-syn', reason: 'not-asked' }
]
const own = read(...linuxSynOptions(7))
const stamped250 = toa(250, '203.0.113.7', 51234).subarray(2)
const stamped = read(toa(254, '203.0.113.7', 51234), mss(1460))
const unloaded = { vtoa: false, toa: false, rewrites: false } as const
const plainHost: Circumstances = { captureRefused: undefined, asks: true, loaded: unloaded, listener: 'AF_INET' }
const notes = (facts: Parameters<typeof noteOn>[0], captureRefused: string | undefined, asks: boolean, more: Partial<Circumstances> = {}) =>
  noteOn(facts, { ...plainHost, captureRefused, asks, ...more })
const facts = { transportPeer: peer, syn: { options: own, payload: false }, ack: null, sources: none }

t.test('what cannot be seen, and what follows', async (t) => {
  t.same(notes(facts, 'EPERM', true), [
    'TOA after the SYN, on the ACK or on data, is not visible here: no kernel module answers, and capturing it needs root (EPERM).'
  ])
  t.match(notes(facts, undefined, true), [/no kernel module answers\.$/])
  t.same(notes({ ...facts, ack: own }, undefined, true), ['Neither the SYN nor the ACK carries TOA.'])
  t.same(notes({ ...facts, ack: stamped }, undefined, true), [
    'Only the ACK carries TOA, not the SYN: to read it, load a kernel module, vtoa or the toa.ko of the balancer, ' +
      'or run fastify-real-ip attach (Linux 5.10 or later).'
  ])
  t.match(notes({ ...facts, syn: null, ack: stamped }, undefined, true), [/^The kernel did not save the SYN/, /^Only the ACK carries TOA, not the SYN/])
  const onBoth = { ...facts, syn: { options: stamped, payload: false } }
  t.match(notes({ ...onBoth, ack: stamped }, undefined, true), [/^If 10\.0\.0\.2 is a balancer/])
  for (const other of [toa(254, '198.51.100.66', 51234), toa(254, '203.0.113.7', 666)]) {
    t.same(notes({ ...onBoth, ack: read(other) }, undefined, true), [
      "The SYN and the ACK carry different TOAs: a client wrote the SYN's, which must not be believed."
    ])
  }
  t.same(notes({ ...facts, syn: { options: read(option(28, Buffer.of(1), addressBytes('203.0.113.7'))), payload: false }, ack: own }, undefined, true), [],
    'a format that cannot be read')
  t.match(notes({ ...facts, syn: { options: stamped, payload: false }, ack: own }, undefined, true), [
    /^If 10\.0\.0\.2 is a balancer that writes this TOA.* --trusted-peers 10\.0\.0\.2 --toa 254\/8\/IPv4\/first$/
  ])
  t.same(notes({ ...facts, syn: { options: stamped, payload: false }, ack: own }, undefined, false), [], 'with --toa there is nothing to find out')
  t.same(notes({ ...facts, transportPeer: null, syn: null, ack: own }, undefined, true), [
    'The kernel did not save the SYN, as in a SYN flood (SYN cookies): its options are not visible.'
  ])

  const claimed: Asked[] = [...none.slice(0, 3), { source: 'saved-syn', address: '203.0.113.7', port: 1 }]
  t.match(notes({ ...facts, sources: claimed }, undefined, false), [/no kernel module answers\.$/], 'what the SYN claims is no module')

  for (const module of [
    { source: 'vtoa', reason: 'ESRCH' }, { source: 'nat64', reason: 'EINVAL' }, { source: 'getpeername', address: '203.0.113.7', port: 1 }
  ] as Asked[]) {
    const sources = none.map((asked) => asked.source === module.source ? module : asked)
    t.same(notes({ ...facts, sources }, 'EPERM', true), [], `a module answers: ${module.source}`)
  }
})

t.test('no advice under which connections would be reset', async (t) => {
  const on = (...options: Option[]) => ({ ...facts, ack: own, syn: { options: read(...options), payload: false } })
  const stamp = toa(254, '203.0.113.7', 51234)
  t.same(notes(on(toa(254, '0.0.0.0', 1)), undefined, true), ["The SYN's TOA must not be believed: implausible: no client can have the address."])
  t.match(notes(on(stamp, ...Array.from({ length: 28 }, () => nop)), undefined, true), [/^The SYN's TOA must not be believed: no-room: /])
  for (const other of [toa(254, '198.51.100.66', 51234), toa(253, '2001:db8::66', 51234)]) {
    t.same(notes(on(stamp, other), undefined, true), ['The SYN carries TOAs that differ: a client wrote all but one, and which one is unknown.'])
  }
  t.match(notes(on(stamp, mss(1), stamp), undefined, true), [/--toa 254\/8\/IPv4\/first$/], 'twice the same')
  const sources: Asked[] = [...none.slice(0, 2), { source: 'getpeername', address: '198.51.100.66', port: 51234 }]
  t.same(notes({ ...on(stamp), ack: null, sources }, undefined, true), [
    "The SYN's TOA differs from what the kernel module returned: with --toa such a connection is reset as ambiguous."
  ])
  t.same(notes(on(toa(254, '0.0.0.0', 1)), undefined, false), [], 'with --toa the source itself says so')
})

t.test('a module that does not read the format, or not for this listener', async (t) => {
  const ackOf = (...options: Option[]) => {
    const bytes = segment(options, ACK)
    return { ...facts, ack: readSegmentOptions(bytes, bytes.length) }
  }
  const v4 = (kind: number) => toa(kind, '203.0.113.7', 1)
  const v6 = (kind: number) => toa(kind, '2001:db8::7', 1)
  const withVip = option(252, v4(252).subarray(2), Buffer.alloc(12))
  const vtoa = { ...unloaded, vtoa: true }
  const toaModule = { ...unloaded, toa: true } as const
  const dpvs = { ...unloaded, toa: 'DPVS' } as const
  const cases: Array<[what: string, option: Option, more: Partial<Circumstances>, note: RegExp]> = [
    ['vtoa', v6(254), { loaded: vtoa }, /^TOA 254\/20 was sent, but the module vtoa is not known to read it: vtoa reads 254\/8, 253\/20, 252\/20, 249\/40\.$/],
    ['vtoa, IPv4', v6(253), { loaded: vtoa }, /^TOA 253\/20 was sent, but the module vtoa reads it only for listeners on an IPv6 address, such as ::: run watch again with --host ::\.$/],
    ['vtoa, IPv6', withVip, { loaded: vtoa, listener: 'AF_INET6' }, /the module vtoa reads it only for listeners on an IPv4 address.*--host 0\.0\.0\.0\.$/],
    ['vtoa that could', v4(254), { loaded: vtoa }, /^TOA 254\/8 was sent, but the module vtoa returned nothing\. On this listener it is read by vtoa\.$/],
    ['vtoa or attach', v6(253), { loaded: { ...toaModule, vtoa: 'or attach' } }, /^TOA 253\/20 was sent, but getsockopt 1348 returned nothing\. vtoa or attach answers it: .* --toa and --trusted-peers \(sudo fastify-real-ip status\)\.$/],
    ['Huawei or another', v4(254), { loaded: toaModule, listener: 'AF_INET6' }, /the module toa returned nothing.* listener it is read by LVS, DPVS, UCloud; by Huawei only for listeners on an IPv4 address, such as 0\.0\.0\.0; not by Tencent\.$/],
    ['no toa.ko', v4(77), { loaded: toaModule }, /^TOA 77\/8 was sent, but the module toa is not known to read it/],
    ["DPVS's", v4(200), { loaded: dpvs }, /the toa module of DPVS is not known to read it: DPVS reads 254\/8, 254\/20\.$/],
    ['both', v6(254), { loaded: { ...vtoa, toa: 'DPVS' } }, /the module vtoa and the toa module of DPVS returned nothing.* by DPVS; not by vtoa\.$/],
    ['none', v4(254), {}, /^Only the ACK carries TOA, not the SYN: to read it, load a kernel module/]
  ]
  for (const [what, given, more, note] of cases) {
    const seen = ackOf(given)
    // Kind 77 is no TOA that is known: here it stands for one that will be.
    const ack = seen.ack.map((option) => ({ ...option, name: 'toa' }))
    t.match(notes({ ...seen, ack }, undefined, true, more), [note], what)
  }
  t.match(notes({ ...facts, syn: { options: stamped, payload: false } }, undefined, true, { loaded: toaModule, listener: 'AF_INET6' }), [
    /the kernel module has nothing for this connection\.$/, /^TOA 254\/8 was sent, but the module toa returned nothing\. .*Huawei/, /^If 10\.0\.0\.2/
  ], 'where the ACK is not visible, by the SYN')
  const claimed: Asked[] = [...none.slice(0, 2), { source: 'getpeername', address: '203.0.113.7', port: 1 }]
  t.same(notes({ ...ackOf(v4(254)), sources: claimed }, undefined, true, { loaded: toaModule }), [], 'it is read')
  const hidden = ackOf(option(250, v4(250).subarray(2)), v4(254))
  t.match(notes(hidden, undefined, true, { loaded: vtoa }), [/^TOA 254\/8/, /^Kind 250, the virtual server, comes before the TOA/])
  t.match(notes(ackOf(v4(254), option(250, v4(250).subarray(2))), undefined, true, { loaded: vtoa }), [/^TOA 254\/8/], 'behind it')
  t.same(notes({ ...hidden, sources: claimed }, undefined, true), [], 'in front of it, and read')
  t.same(notes(ackOf(option(250, v4(250).subarray(2))), undefined, true), ['Neither the SYN nor the ACK carries TOA.'])
})

t.test('beside a module nobody is told that there is none', async (t) => {
  for (const loaded of [{ ...unloaded, toa: true }, { ...unloaded, vtoa: true }, { ...unloaded, rewrites: true }] as const) {
    t.same(notes(facts, 'EPERM', true, { loaded }), [
      'TOA after the SYN, on the ACK or on data, is not visible here: the kernel module has nothing for this connection, and capturing it needs root (EPERM).'
    ])
  }
})

t.test('what is known of the modules', async (t) => {
  const on = (names: string[]) => new Modules((name) => names.includes(name))
  const answering = (source: Asked['source'], reason: string) =>
    ({ ...facts, sources: none.map((asked) => asked.source === source ? { source, reason } : asked) })
  t.same(on([]).look(facts), unloaded)
  t.same(on(['vtoa']).look(facts), { ...unloaded, vtoa: true })
  t.same(on(['toa']).look(facts), { ...unloaded, toa: true })
  t.same(on([]).look(answering('vtoa', 'ESRCH')), { ...unloaded, vtoa: 'or attach' })
  t.same(on(['vtoa']).look(answering('vtoa', 'ESRCH')), { ...unloaded, vtoa: true })
  t.same(on(['toa']).look(answering('nat64', 'EINVAL')), { ...unloaded, toa: 'DPVS' })
  t.type(new Modules().look(facts).vtoa, 'boolean')

  const modules = on([])
  t.equal(modules.look(facts).rewrites, false)
  const claimed: Asked[] = [{ source: 'getpeername', address: '203.0.113.7', port: 1 }]
  t.equal(modules.look({ ...facts, transportPeer: null, sources: claimed }).rewrites, false, 'nothing to compare with')
  t.equal(modules.look({ ...facts, sources: claimed }).rewrites, true)
  t.equal(modules.look(facts).rewrites, true, 'from then on')
})

t.test('a connection as text', async (t) => {
  const seen: Seen = {
    ...facts,
    connection: 3,
    time: '2026-01-01T00:00:00.000Z',
    syn: { options: stamped, payload: true },
    sources: [...none.slice(0, 3), { source: 'saved-syn', reason: 'strange' }],
    decision: { address: '203.0.113.7', port: 51234, family: 'IPv4', source: 'saved-syn', trust: 'trusted', reset: false },
    notes: ['A note.']
  }
  t.equal(drawSeen(seen, {}), [
    'Connection 3 at 2026-01-01T00:00:00.000Z',
    '  transport peer   10.0.0.2:40000 (from the saved SYN)',
    '  SYN              TOA 254/8 203.0.113.7:51234 (Alibaba, DPVS, Huawei, UCloud), mss 1460, with data',
    '  ACK              not visible',
    '  vtoa             ENOPROTOOPT: no module answers: not loaded, or too old',
    '  nat64            ENOPROTOOPT: no module answers: not loaded, or too old',
    '  getpeername      10.0.0.2:40000, the transport peer: no claim',
    '  saved-syn        strange',
    '  the plugin says  203.0.113.7:51234 by saved-syn, trusted',
    '  A note.',
    ''
  ].join('\n'))

  t.ok(drawSeen({ ...seen, syn: facts.syn }, {}).includes('\n  SYN              mss 1460, sackOK, ts 7/0, nop, wscale 7\n'))

  const options = read(option(250, stamped250), option(252, stamped250, Buffer.of(0, 0, 7, 0), addressBytes('198.51.100.1'), Buffer.of(1, 187, 0, 0)), option(77, stamped250))
  t.ok(drawSeen({ ...seen, syn: { options, payload: false } }, {}).includes(
    '\n  SYN              250/8 203.0.113.7:51234 (Alibaba, the virtual server, not a client), ' +
    'TOA 252/20 203.0.113.7:51234 (Alibaba, with the virtual server 198.51.100.1:443), kind 77 c822cb007107 (as TOA it would be 203.0.113.7:51234)\n'
  ))

  const narrow = drawSeen({ ...seen, notes: ['One note, longer than forty columns are.'] }, { columns: 40, colours: true })
  for (const line of narrow.split('\n')) t.ok(stripVTControlCharacters(line).length <= 40, line)
  t.match(stripVTControlCharacters(narrow), '\n  SYN              TOA 254/8\n                   203.0.113.7:51234\n                   (Alibaba, DPVS,')
  t.match(stripVTControlCharacters(narrow), '\n  One note, longer than forty columns\n  are.\n')

  const flood: Seen = {
    ...seen,
    transportPeer: null,
    syn: null,
    ack: [],
    sources: [{ source: 'getpeername', address: '2001:db8::7', port: 443 }],
    decision: { address: undefined, port: undefined, family: undefined, source: 'none', trust: 'unverified', reason: 'unverified-peer', reset: true },
    notes: []
  }
  t.equal(drawSeen(flood, {}), [
    'Connection 3 at 2026-01-01T00:00:00.000Z',
    '  transport peer   unknown',
    '  SYN              not visible',
    '  ACK              no options',
    '  getpeername      [2001:db8::7]:443',
    '  the plugin says  no address, unverified (unverified-peer: the sender of the packets is unknown); the connection is reset',
    ''
  ].join('\n'))
  t.match(drawSeen({ ...flood, transportPeer: { ...peer, by: 'sock_diag' } }, {}), '10.0.0.2:40000 (from sock_diag)')

  const coloured = drawSeen({ ...seen, decision: { ...seen.decision, reset: true } }, { colours: true })
  t.match(coloured, '\x1b[1mTOA 254/8 203.0.113.7:51234\x1b[22m')
  t.match(coloured, '\x1b[32mtrusted\x1b[39m\x1b[31m; the connection is reset\x1b[39m')
  t.match(coloured, '\x1b[33mA note.\x1b[39m')
  const styled = (trust: Seen['decision']['trust']) => drawSeen({ ...seen, decision: { ...seen.decision, trust } }, { colours: true })
  t.match(styled('untrusted'), '\x1b[31muntrusted\x1b[39m')
  t.match(styled('unverified'), '\x1b[33munverified\x1b[39m')
  t.match(styled('unchecked'), '\x1b[33munchecked\x1b[39m')
  t.notMatch(drawSeen({ ...seen, sources: [{ source: 'getpeername', address: '10.0.0.2', port: 1 }] }, {}), 'no claim', 'another port is a claim')
  t.match(coloured, '\x1b[2m at 2026-01-01T00:00:00.000Z\x1b[22m')
  for (const reason of [
    'ENOPROTOOPT', 'ESRCH', 'EINVAL', 'EFAULT', 'not-asked', 'no-saved-syn', 'no-option', 'out-of-place', 'no-room', 'syn-payload', 'ambiguous',
    'no-toa', 'untrusted-peer', 'unverified-peer', 'implausible'
  ] as const) t.match(drawSeen({ ...seen, sources: [{ source: 'vtoa', reason }] }, {}), new RegExp(` ${reason}: \\w`), 'every reason is explained')
  t.equal(endpoint('2001:db8::7', undefined), '2001:db8::7')
})
