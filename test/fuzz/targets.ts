import assert from 'node:assert/strict'
import { SocketAddress } from 'node:net'
import fc from 'fast-check'
import { canonicalAddress, formatAddress, parseAddress } from '../../lib/address/address'
import { compileHeader } from '../../lib/http/forwarded'
import { checkOptions } from '../../lib/options/options'
import { compileRanges } from '../../lib/address/ranges'
import { decodeSavedSyn, hasPayload, tcpHeaderAt, tcpOptionsEnd } from '../../lib/kernel/tcp-header'
import { decodeReplies } from '../../lib/kernel/sock-diag'
import { createEndpoint, decodeSockaddr, type Endpoint } from '../../lib/kernel/sockaddr'
import { findToa } from '../../lib/sources/toa-option'
import { toaPresets } from '../../lib/options/toa'
import { decodeProxyHeader } from '../../lib/sources/proxy-header'
import { encodeProxyHeader } from '../../lib/sources/proxy-encode'
import { describeProxyHeader } from '../../lib/sources/proxy-tlvs'
import type { ToaFormat } from 'fastify-real-ip'
import { addressOf, anyAddress, bitsOf, type Plain, parsePlain, plainOf, textOf, unmapped, within } from '../trust/plain'
import { answers, plainAnswers } from '../trust/plain-answers'
import { canonical, type Header, headers, noise, plainAddress, plainReaders, plainWalk, walked } from '../http/plain-headers'
import { list, plainRange, written } from '../address/plain-ranges'
import { options as tcpOptions, packet, plainHasPayload, plainSender, plainTcp, plainToa } from '../kernel/plain-syn'
import { plainDescription, plainProxy, type PlainProxy, proxyHeaders } from '../sources/plain-proxy'
import { anyOptions, type Json, mutateOptions, plainOptions, revive } from './plain-options'

/** One decoder, and what must hold of it whatever it is given. All input is bytes: a file of the corpus is one. */
export interface Target {
  readonly name: string
  /** Inputs that are well-formed or nearly so. */
  readonly inputs: fc.Arbitrary<Uint8Array>
  /** What is worth writing into an input. */
  readonly tokens?: readonly Uint8Array[]
  /** Where bytes that are changed anywhere would mostly be no input any more. */
  readonly mutate?: (input: Uint8Array, random: (below: number) => number) => Uint8Array
  /** Its part of a run's cases, in proportion to the others'. */
  readonly share: number
  /** Throws where something does not hold. `guard` makes bytes that must not be read past their end. */
  check (input: Uint8Array, guard: (input: Uint8Array) => Uint8Array): void
}

const bytes = (...values: number[]) => Uint8Array.from(values)
const latin1 = (text: string): Uint8Array => Buffer.from(text, 'latin1')
const textIn = (input: Uint8Array) => Buffer.from(input.buffer, input.byteOffset, input.length).toString('latin1')
const bufferOf = (input: Uint8Array) => Buffer.from(input.buffer, input.byteOffset, input.length)

const into = createEndpoint()
const shown = (endpoint: Readonly<Endpoint>) => `${textOf(plainOf(endpoint))} ${endpoint.port}`

function mustBe (result: string | undefined, expected: string | undefined): void {
  if (result !== expected) throw new Error(`${result} instead of ${expected}`)
}

/** Text must read back as the address, and be as the C library writes it, which still has dots in ::/96. */
function mustBeCanonical (text: string | undefined, plain: Plain): void {
  mustBe(text && plainAddress(text), textOf(plain))
  const { family } = plain
  const theirs = new SocketAddress({ address: textOf(plain), family: family === 'IPv4' ? 'ipv4' : 'ipv6' }).address
  if (family === 'IPv4' || !theirs.includes('.')) mustBe(text, theirs)
}

/** The first twelve bytes of ::ffff:a.b.c.d. */
const mapped = [...new Array<number>(10).fill(0), 255, 255]
/** What an endpoint is before a decoder that may not write to it. */
const untouched: Endpoint = { ...createEndpoint(), family: 'IPv6', w1: 7, port: 9 }

const sockaddr: Target = {
  name: 'sockaddr',
  share: 100,
  inputs: fc.tuple(fc.constantFrom([2, 0], [10, 0]), fc.uint8Array({ minLength: 2, maxLength: 6 }), fc.boolean(), fc.uint8Array({ minLength: 20, maxLength: 120 }))
    .map(([family, head, isMapped, rest]) => bytes(...family, ...head, ...isMapped ? mapped : [], ...rest)),
  tokens: [bytes(...mapped), bytes(10, 0), bytes(2, 0)],
  check (input) {
    // The kernel's answers always have 128 bytes. A view throws where something behind its end is read.
    const answer = new Uint8Array(128)
    answer.set(input.subarray(0, 128))
    const packet = bufferOf(answer)
    const family = packet.readUInt16LE(0)
    const end = family === 2 ? 8 : 24
    const hex = packet.toString('hex', family === 2 ? 4 : 8, end)
    const expected = family === 2 || family === 10
      ? `${textOf(unmapped({ family: family === 2 ? 'IPv4' : 'IPv6', value: BigInt(`0x${hex}`) }))} ${packet.readUInt16BE(2)}`
      : 'untouched'
    for (const given of [new DataView(answer.buffer, 0, end), new DataView(answer.buffer)]) {
      Object.assign(into, untouched)
      const decoded = decodeSockaddr(given, family, into)
      mustBe(decoded ? shown(into) : shown(into) === shown(untouched) ? 'untouched' : shown(into), expected)
    }
    if (expected !== 'untouched') mustBeCanonical(formatAddress(into), plainOf(into))
  }
}

/** The same bytes with an end that is guarded, and with others behind them that tell whoever reads on. */
function views (input: Uint8Array, guard: (input: Uint8Array) => Uint8Array): Uint8Array[] {
  return [guard(input), ...[6, 255].map((tail) => {
    const longer = new Uint8Array(input.length + 64).fill(tail)
    longer.set(input)
    return longer
  })]
}

const format = (kind: number, family: ToaFormat['family'], position: ToaFormat['position']): ToaFormat =>
  ({ kind, length: family === 'IPv4' ? 8 : 20, family, position })
const formats: ReadonlyArray<ReadonlyArray<ToaFormat>> = [
  ...new Set(Object.values(toaPresets).map(({ formats }) => formats)),
  [format(254, 'IPv4', 'last')],
  [format(200, 'IPv4', 'last'), format(254, 'IPv6', 'first'), format(253, 'IPv6', 'last'), { ...format(254, 'IPv4', 'first'), length: 12 }]
]

const optionTokens = [
  bytes(254, 8, 0, 80, 203, 0, 113, 7), bytes(200, 8, 0, 80, 203, 0, 113, 7), bytes(254, 8, 0xf9, 0x89, 1, 2, 3, 4),
  bytes(253, 6, 0xe2, 0xd4, 0xc3, 0xd9), bytes(253, 20, 0, 80, ...mapped, 203, 0, 113, 7), bytes(254, 20, 0, 80, ...new Array<number>(16).fill(1)),
  bytes(1, 1, 1, 1), bytes(0), bytes(2, 4, 5, 180)
]

const toa: Target = {
  name: 'toa',
  share: 200,
  inputs: tcpOptions,
  tokens: optionTokens,
  check (input, guard) {
    const given = views(input, guard)
    for (const [i, each] of formats.entries()) {
      // With and without payload by turns: it concerns the reason alone.
      const payload = (i + input.length) % 3 === 0
      const expected = plainToa(bufferOf(input), payload, each)
      for (const bytes of given) mustBe(findToa(bytes, 0, input.length, payload, each, into) ?? shown(into), expected)
    }
  }
}

const savedSyn: Target = {
  name: 'saved-syn',
  share: 200,
  inputs: packet,
  tokens: [...optionTokens, bytes(6), bytes(0x45), bytes(0x60), bytes(44, 0), bytes(51, 1), bytes(60, 0), bytes(43, 0)],
  check (input, guard) {
    const whole = bufferOf(input)
    const segment = plainTcp(whole)
    const sender = plainSender(whole)
    const end = segment && Math.min(Math.max(20, (segment.readUInt8(12) >> 4) * 4), segment.length)
    const claims = formats.map((each) => segment && plainToa(segment.subarray(20, end), plainHasPayload(whole), each))
    for (const bytes of views(input, guard)) {
      Object.assign(into, untouched)
      mustBe(decodeSavedSyn(bytes, input.length, into) ? shown(into) : undefined, sender)
      if (sender === undefined) mustBe(shown(into), shown(untouched))
      const tcp = tcpHeaderAt(bytes, input.length)
      mustBe(String(tcp), String(segment === undefined ? -1 : input.length - segment.length))
      if (tcp < 0) continue
      for (const [i, each] of formats.entries()) {
        const reason = findToa(bytes, tcp + 20, tcpOptionsEnd(bytes, input.length, tcp), hasPayload(bytes, tcp), each, into)
        mustBe(reason ?? shown(into), claims[i])
      }
    }
  }
}

const netlink: Target = {
  name: 'netlink',
  share: 120,
  inputs: answers,
  tokens: [bytes(20, 0, 2, 0), bytes(3, 0, 2, 0), bytes(2, 0, 0, 0), bytes(88, 0, 0, 0), bytes(16, 0, 0, 0), bytes(255, 255, 255, 255), bytes(...mapped)],
  check (input) {
    const expected = plainAnswers(bufferOf(input))
    for (const bytes of views(input, (bytes) => bytes)) {
      const found: string[] = []
      const rest = decodeReplies(bytes, input.length, into, (cookie) => { found.push(`${cookie} ${shown(into)}`) })
      mustBe([rest, ...found].join(), [expected.rest, ...expected.found].join())
    }
  }
}

const proxy: Target = {
  name: 'proxy',
  // More than a third of the sum: 100,000 of the 300,000 cases of a normal run.
  share: 540,
  inputs: proxyHeaders,
  tokens: [
    ...['PROXY ', 'TCP4 ', 'TCP6 ', 'UNKNOWN', '\r\n', '\r', '\n', ' ', '0', '65536', '::', '::ffff:', '203.0.113.7', '%'].map(latin1),
    bytes(13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10), bytes(0x21, 0x11, 0, 12), bytes(0x20, 0, 0, 0), bytes(0x21, 0x21, 0, 36), bytes(15, 240), bytes(15, 241),
    bytes(3, 0, 4, 0, 0, 0, 0), bytes(4, 0, 0), bytes(0x20, 0, 5, 1, 0, 0, 0, 0), bytes(0xea, 0, 2, 1, 65), bytes(0xee, 0, 5, 1, 1, 2, 3, 4)
  ],
  check (input, guard) {
    const expected = plainProxy(bufferOf(input))
    for (const bytes of views(input, guard)) mustDecode(bytes, input.length, expected)
    if (typeof expected === 'string') return
    // Whatever is cut off, there is more to come.
    for (let length = 0; length < expected.length; length += 1 + (expected.length >>> 4)) mustDecode(input, length, 'more')
    mustEncode(expected)
  }
}

function mustDecode (bytes: Uint8Array, length: number, expected: PlainProxy): void {
  const decoded = decodeProxyHeader(bytes, length)
  if (decoded === 'more' || 'reason' in decoded) {
    if (decoded !== 'more') assert(decoded.at < length && decoded.what !== '', decoded.what)
    mustBe(decoded === 'more' ? decoded : decoded.reason, typeof expected === 'string' ? expected : 'a header')
    return
  }
  if (typeof expected === 'string') throw new Error(`a header instead of ${expected}`)
  const { source, destination } = decoded
  const ends = source && destination && [shown(source), shown(destination)]
  mustBe(JSON.stringify([decoded.length, decoded.version, decoded.local, ends]),
    JSON.stringify([expected.length, expected.version, expected.ends === undefined, expected.ends]))
  for (const end of [source, destination]) if (end !== undefined) mustBeCanonical(formatAddress(end), plainOf(end))
  const { version, local, destination: described, ...said } = describeProxyHeader(decoded)
  assert.deepEqual(said, plainDescription(expected.tlvs))
}

/** A header that is encoded anew, with its TLVs, says the same. */
function mustEncode ({ version, ends, tlvs }: Exclude<PlainProxy, string>): void {
  const [source, destination] = (ends ?? []).map((end) => {
    const [address = '', port] = end.split(' ')
    return { address, port: Number(port) }
  })
  // An IPv6 header can have one address that is IPv4-mapped; and none is longer than 4,096 bytes.
  if (source?.address.includes(':') !== destination?.address.includes(':')) return
  const encoded = encodeProxyHeader({
    version,
    ...(source && destination && { source, destination }),
    ...(version === 2 && { tlvs: tlvs.filter(([type]) => type !== 3).map(([type, value]) => ({ type, value })), checksum: tlvs.some(([type]) => type === 3) })
  })
  const again = plainProxy(encoded)
  if (typeof again === 'string') throw new Error(again)
  assert.deepEqual([again.length, again.version, again.ends], [encoded.length, version, ends])
  // LOCAL has no TLVs that count.
  if (ends !== undefined) assert.deepEqual(plainDescription(again.tlvs), plainDescription(tlvs))
}

/** The sender on the first line, then the header's lines. */
function headerTarget (name: Header, share: number): Target {
  return {
    name,
    share,
    inputs: fc.tuple(canonical, fc.array(fc.oneof({ weight: 4, arbitrary: headers[name] }, { weight: 1, arbitrary: noise }), { maxLength: 3 }))
      .map(([peer, lines]) => latin1([peer, ...lines].join('\n'))),
    tokens: [
      '10.0.0.1', '127.0.0.1', '::1', '0.0.0.0', '224.0.0.1', '%eth0', ':443', 'proto=', 'host=', '[fd00::1]', '"[fd00::1]:80"', '203.0.113.7', '::ffff:10.0.0.1', 'for=', ';', ',', ', ', '"', '\\', '\\"', ':', '%', '=', '\n', ' ', '\t', 'unknown', '[', ']'
    ].map(latin1),
    check (input) {
      const [first = '', ...lines] = textIn(input).split('\n')
      const peer = parsePlain(first) === undefined ? '10.0.0.1' : first
      const { address = '', port, reason, source, family, trust: judged, via } = walked(peer, name, lines)
      const [expected, ...rest] = plainWalk(peer, plainReaders[name](lines))
      mustBe([plainAddress(address), port ?? '', reason, source].join(), [expected, ...rest].join())
      if (source === 'forwarded') {
        mustBeCanonical(address, parsePlain(expected) as Plain)
        mustBe([family, judged, via?.address].join(), [parsePlain(expected)?.family, 'trusted', peer].join())
      }
      // Nobody reads more hops than there can be entries.
      const hops = [...compileHeader(name)(lines.flatMap((line) => [name, line]))].length
      assert(hops <= input.length, `${hops} hops in ${input.length} bytes`)
    }
  }
}

/** An entry a line. */
const ranges: Target = {
  name: 'ranges',
  share: 30,
  inputs: fc.tuple(list, fc.nat()).map(([ranges, style]) => latin1(ranges.map((range, i) => written(range, style + i)).join('\n'))),
  tokens: ['::ffff:', '::', '/', '/0', '/96', '/128', '/32', '\n', 'loopback', '\nlinklocal\n', 'uniquelocal', '%', '0', '10.0.0.0/8', '.', ':'].map(latin1),
  check (input) {
    const entries = textIn(input).split('\n').slice(0, 12)
    const right = entries.filter((entry) => {
      const expected = plainRange(entry)
      let error
      try {
        compileRanges([entry], 'list')
      } catch (thrown) {
        error = thrown as Error & { code?: string }
      }
      mustBe(error?.code, expected === undefined ? 'FST_REAL_IP_INVALID_OPTION' : undefined)
      if (error !== undefined) assert(error.message.includes(`'list' has ${JSON.stringify(entry)}: `), error.message)
      return expected !== undefined
    })
    const { includes } = compileRanges(right, 'list')
    const networks = right.flatMap((entry) => plainRange(entry) ?? [])
    for (const { network: { family, value }, prefix } of networks) {
      const size = 1n << bitsOf({ family }) - BigInt(prefix)
      for (const at of [value - 1n, value, value + size - 1n, value + size]) {
        const probe = { family, value: BigInt.asUintN(Number(bitsOf({ family })), at) }
        const expected = networks.some(({ network, prefix }) => within(probe, network, prefix))
        mustBe(`${textOf(probe)} ${includes(addressOf(probe))}`, `${textOf(probe)} ${expected}`)
      }
    }
  }
}

const address: Target = {
  name: 'address',
  share: 100,
  inputs: fc.tuple(anyAddress, fc.nat({ max: 3 })).map(([plain, style]) => latin1(
    style === 0 ? textOf(plain) : style === 1 ? formatAddress(addressOf(plain)) : style === 2 ? textOf(plain).toUpperCase() : `::ffff:${textOf(plain)}`)),
  tokens: ['::', ':', '.', '0', '00', '256', 'ffff', '::ffff:', '1.2.3.4', '%', '%eth0', ' ', '\0', '[', ']', '/8', 'g', '-', '+', '0x', '1e1'].map(latin1),
  check (input) {
    const text = textIn(input)
    const plain = parsePlain(text)
    const parsed = parseAddress(text)
    mustBe(parsed && textOf(plainOf(parsed)), plain && textOf(unmapped(plain)))
    if (parsed !== undefined) mustBeCanonical(formatAddress(parsed), unmapped(plain as Plain))
    const zoneless = parsePlain(text.split('%')[0] as string)
    const canonical = canonicalAddress(text)
    mustBe(canonical && plainAddress(canonical), zoneless && textOf(unmapped(zoneless)))
  }
}

/** JSON, in which { "$": "undefined" } and the like are what JSON has no word for. */
const options: Target = {
  name: 'options',
  share: 30,
  inputs: anyOptions.map((given) => latin1(JSON.stringify(given))),
  mutate: (input, random) => latin1(JSON.stringify(mutateOptions(readJson(input) ?? {}, random))),
  check (input) {
    const given = revive(readJson(input))
    if (typeof given !== 'object' || given === null) return
    const expected = plainOptions(given as Record<string, unknown>)
    let checked
    try {
      checked = checkOptions(given)
    } catch (error) {
      const { code, message } = error as Error & { code?: string }
      mustBe(`${code} ${error instanceof TypeError} ${expected === undefined}`, 'FST_REAL_IP_INVALID_OPTION true true')
      assert(message.startsWith('fastify-real-ip: ') && message.length > 30, message)
    }
    if (checked !== undefined) {
      assert.deepEqual(checked, expected)
      const { sources, settings, forwarded, proxyProtocol, trustedPeers } = checked
      for (const part of [checked, sources, settings, forwarded, forwarded?.trust, forwarded?.trust.addresses, proxyProtocol, proxyProtocol?.from, trustedPeers]) assert(typeof part === 'function' || Object.isFrozen(part))
    }
    assert.deepEqual(given, revive(readJson(input)), 'the user\'s own object was changed')
  }
}

function readJson (input: Uint8Array): Json | undefined {
  try {
    return JSON.parse(textIn(input))
  } catch {
    return undefined
  }
}

export const targets: readonly Target[] = [
  sockaddr, toa, savedSyn, netlink, proxy,
  headerTarget('x-forwarded-for', 110), headerTarget('forwarded', 110), headerTarget('x-real-ip', 30), headerTarget('cloudfront-viewer-address', 30),
  address, ranges, options
]
