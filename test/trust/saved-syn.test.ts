import fc from 'fast-check'
import t from 'tap'
import { decodeSavedSyn, tcpHeaderAt } from '../../lib/saved-syn'
import { createEndpoint } from '../../lib/sockaddr'
import { findToa } from '../../lib/tcp-options'
import type { ToaFormat } from 'fastify-real-ip'
import { numRuns, type Plain, plainOf, textOf, unmapped } from './plain'

t.setTimeout(0)

const TCP = 6
const FRAGMENT = 44
const AUTHENTICATION = 51

const octet = fc.nat({ max: 255 })
const octets = (minLength: number, maxLength: number) => fc.uint8Array({ minLength, maxLength })

const tcp = fc.tuple(octets(12, 12), fc.nat({ max: 15 }), octets(7, 47)).map(([head, words, rest]) => [...head, words << 4, ...rest])
const ipv4 = fc.tuple(fc.nat({ max: 15 }), octets(8, 8), fc.oneof(fc.constant(TCP), octet), octets(10, 10), octets(0, 40), tcp)
  .map(([words, head, protocol, rest, options, segment]) =>
    [4 << 4 | words, ...head, protocol, ...rest, ...options.slice(0, Math.max(0, words * 4 - 20)), ...segment])
const extension = fc.tuple(fc.constantFrom(0, 43, FRAGMENT, AUTHENTICATION, 60), fc.oneof(fc.nat({ max: 3 }), octet), octets(6, 30))
const ipv6 = fc.tuple(octets(5, 5), octets(33, 33), fc.array(extension, { maxLength: 5 }), fc.oneof(fc.constant(TCP), octet), tcp)
  .map(([head, rest, extensions, protocol, segment]) => {
    const types = [...extensions.map(([type]) => type), protocol]
    const chain = extensions.flatMap(([type, size, body], i) => {
      const length = type === FRAGMENT ? 8 : type === AUTHENTICATION ? (size + 2) * 4 : (size + 1) * 8
      return [types[i + 1]!, size, ...body, ...new Array(256 * 8).fill(7)].slice(0, length)
    })
    return [6 << 4, ...head, types[0]!, ...rest, ...chain, ...segment]
  })
/** Bytes, and how many of them are said to be there: headers as they are, cut short, with single bytes changed, or noise. */
const packet = fc.tuple(
  fc.oneof(ipv4, ipv6, octets(0, 130).map((bytes) => [...bytes])),
  fc.array(fc.tuple(fc.nat(), octet), { maxLength: 2 }),
  fc.oneof(fc.constant(0), fc.nat({ max: 60 }))
).map(([bytes, changes, cut]) => {
  const changed = Uint8Array.from(bytes)
  for (const [at, value] of changes) if (changed.length > 0) changed[at % changed.length] = value
  return changed.subarray(0, Math.max(0, changed.length - cut))
})

/** The TCP header of a packet, and what follows: by a search that cuts off one header after the other. */
function plainTcp (packet: Buffer): Buffer | undefined {
  if (packet.length < 40) return undefined
  const version = packet[0]! >> 4
  if (version === 4) {
    const length = (packet[0]! & 15) * 4
    const segment = packet.subarray(length)
    return length >= 20 && packet[9] === TCP && segment.length >= 20 ? segment : undefined
  }
  return version === 6 ? plainChain(packet[6]!, packet.subarray(40)) : undefined
}

function plainChain (type: number, rest: Buffer): Buffer | undefined {
  if (rest.length < 20 || type === TCP) return rest.length < 20 ? undefined : rest
  const words = new Map([[0, 2 * rest[1]! + 2], [43, 2 * rest[1]! + 2], [60, 2 * rest[1]! + 2], [FRAGMENT, 2], [AUTHENTICATION, rest[1]! + 2]])
  const length = words.get(type)
  return length === undefined ? undefined : plainChain(rest[0]!, rest.subarray(length * 4))
}

function plainSender (packet: Buffer): string | undefined {
  const segment = plainTcp(packet)
  if (segment === undefined) return undefined
  const [family, bytes] = packet[0]! >> 4 === 4 ? ['IPv4', packet.subarray(12, 16)] as const : ['IPv6', packet.subarray(8, 24)] as const
  return `${textOf({ family, value: BigInt(`0x${bytes.toString('hex')}`) })} ${segment.readUInt16BE(0)}`
}

/** The bytes, and behind them others: whoever reads past the end gets another answer by one of them. */
function withTails (bytes: Uint8Array): Uint8Array[] {
  return [0, 6, 255].map((tail) => Uint8Array.from([...bytes, ...new Array(300).fill(tail)]))
}

/** The bytes, with an end that is guarded. */
function guarded (bytes: Uint8Array): Uint8Array {
  return new Proxy(bytes, {
    get (target, name) {
      if (typeof name === 'string' && /^\d+$/.test(name) && Number(name) >= target.length) throw new Error(`byte ${name} of ${target.length} was read`)
      return Reflect.get(target, name)
    }
  })
}

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

const kinds = [200, 253, 254]
const option = fc.oneof(
  { weight: 3, arbitrary: fc.constant([1]) },
  { weight: 1, arbitrary: fc.constant([0]) },
  { weight: 3, arbitrary: fc.tuple(fc.constantFrom(...kinds), octets(2, 2), fc.boolean(), octets(16, 16)).map(([kind, port, long, address]) => [kind, long ? 20 : 8, ...port, ...address].slice(0, long ? 20 : 8)) },
  // Often the same twice.
  { weight: 3, arbitrary: fc.tuple(fc.constantFrom(...kinds), fc.constantFrom(1, 2)).map(([kind, last]) => [kind, 8, 0, 80, 203, 0, 113, last]) },
  { weight: 1, arbitrary: fc.constantFrom([254, 8, 0xf9, 0x89, 1, 2, 3, 4], [254, 8, 0xe2, 0xd4, 0xc3, 0xd9, 1, 2], [2, 4, 5, 180], [254, 20, ...new Array(8).fill(0), 0, 0, 0, 0, 255, 255, 1, 2, 3, 4].slice(0, 20)) },
  { weight: 1, arbitrary: octets(1, 6).map((bytes) => [...bytes]) }
)
const options = fc.array(option, { maxLength: 8 }).map((list) => Uint8Array.from(list.flat()).subarray(0, 40))
const format: fc.Arbitrary<ToaFormat> = fc.tuple(fc.constantFrom(...kinds), fc.constantFrom('IPv4', 'IPv6'), fc.constantFrom('first', 'last'))
  .map(([kind, family, position]) => ({ kind, family, length: family === 'IPv4' ? 8 : 20, position }) as ToaFormat)

interface PlainOption {
  readonly at: number
  readonly bytes: Buffer
}

/** The options that are whole, and where the list of them ends. */
function plainOptions (bytes: Buffer, at = 0): PlainOption[] {
  if (at >= bytes.length || bytes[at] === 0) return []
  const length = bytes[at] === 1 ? 1 : bytes[at + 1] ?? 0
  if (length < 1 || (bytes[at] !== 1 && length < 2) || at + length > bytes.length) return []
  return [{ at, bytes: bytes.subarray(at, at + length) }, ...plainOptions(bytes, at + length)]
}

function plainToa (bytes: Buffer, payload: boolean, formats: readonly ToaFormat[]): string {
  const claims = plainOptions(bytes).flatMap(({ at, bytes: option }) => {
    const format = formats.find(({ kind, length }) => kind === option[0] && length === option.length)
    const hex = option.subarray(2).toString('hex')
    const others = kinds.slice(1).includes(option[0]!) && (hex.startsWith('f989') || hex === 'e2d4c3d9')
    if (format === undefined || others) return []
    const plain: Plain = unmapped({ family: format.family, value: BigInt(`0x${option.subarray(4, format.family === 'IPv4' ? 8 : 20).toString('hex')}`) })
    return [{ at, format, claim: `${textOf(plain)} ${option.readUInt16BE(2)}` }]
  })
  const [first] = claims
  if (first === undefined) return 'no-option'
  if (claims.some(({ claim }) => claim !== first.claim)) return 'ambiguous'
  if (payload) return 'syn-payload'
  const written = claims.filter(({ format }) => format.position === 'last').at(-1) ?? first
  const inPlace = written.format.position === 'first'
    ? written.at === 0
    : bytes.subarray(written.at + written.format.length).every((byte) => byte < 2)
  if (!inPlace) return 'out-of-place'
  if (written.format.length < 20 && bytes.length > 32) return 'no-room'
  return first.claim
}

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
