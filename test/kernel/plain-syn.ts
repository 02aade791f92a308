import fc from 'fast-check'
import type { ToaFormat } from 'fastify-real-ip'
import { type Plain, textOf, unmapped } from '../trust/plain'

// SYNs of any shape, and second implementations of what is read from them.

export const TCP = 6
const FRAGMENT = 44
const AUTHENTICATION = 51

const octet = fc.nat({ max: 255 })
const octets = (minLength: number, maxLength: number) => fc.uint8Array({ minLength, maxLength })

const kinds = [200, 253, 254]
const option = fc.oneof(
  { weight: 3, arbitrary: fc.constant([1]) },
  { weight: 1, arbitrary: fc.constant([0]) },
  { weight: 3, arbitrary: fc.tuple(fc.constantFrom(...kinds), octets(2, 2), fc.boolean(), octets(16, 16)).map(([kind, port, long, address]) => [kind, long ? 20 : 8, ...port, ...address].slice(0, long ? 20 : 8)) },
  // Often the same twice.
  { weight: 3, arbitrary: fc.tuple(fc.constantFrom(...kinds), fc.constantFrom(1, 2)).map(([kind, last]) => [kind, 8, 0, 80, 203, 0, 113, last]) },
  { weight: 1, arbitrary: fc.constantFrom([254, 8, 0xf9, 0x89, 1, 2, 3, 4], [253, 20, 0xf9, 0x89, ...new Array(16).fill(1)], [254, 8, 0xe2, 0xd4, 0xc3, 0xd9, 1, 2], [2, 4, 5, 180], [254, 20, ...new Array(8).fill(0), 0, 0, 0, 0, 255, 255, 1, 2, 3, 4].slice(0, 20)) },
  { weight: 1, arbitrary: octets(1, 6).map((bytes) => [...bytes]) }
)
export const options = fc.array(option, { maxLength: 8 }).map((list) => Uint8Array.from(list.flat()).subarray(0, 40))

const anyTcp = fc.tuple(octets(12, 12), fc.nat({ max: 15 }), octets(7, 47)).map(([head, words, rest]) => [...head, words << 4, ...rest])
const honestTcp = fc.tuple(octets(12, 12), octets(7, 7), options).map(([head, rest, options]) =>
  [...head, 5 + Math.ceil(options.length / 4) << 4, ...rest, ...options, 0, 0, 0].slice(0, 20 + Math.ceil(options.length / 4) * 4))
const tcp = fc.oneof(anyTcp, honestTcp)
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
/** The same bytes with their number in the IP header. */
function withTotal (bytes: number[]): number[] {
  const [at, total] = bytes[0]! >> 4 === 4 ? [2, bytes.length] : [4, bytes.length - 40]
  return bytes.toSpliced(at, 2, total >> 8, total & 255)
}

/** Headers as they are, cut short, with single bytes changed, or noise. */
export const packet = fc.tuple(
  fc.oneof(ipv4, ipv6, ipv4.map(withTotal), ipv6.map(withTotal), octets(0, 130).map((bytes) => [...bytes])),
  fc.array(fc.tuple(fc.nat(), octet), { maxLength: 2 }),
  fc.oneof(fc.constant(0), fc.nat({ max: 60 }))
).map(([bytes, changes, cut]) => {
  const changed = Uint8Array.from(bytes)
  for (const [at, value] of changes) if (changed.length > 0) changed[at % changed.length] = value
  return changed.subarray(0, Math.max(0, changed.length - cut))
})

/** The TCP header of a packet, and what follows: by a search that cuts off one header after the other. */
export function plainTcp (packet: Buffer): Buffer | undefined {
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

export function plainSender (packet: Buffer): string | undefined {
  const segment = plainTcp(packet)
  if (segment === undefined) return undefined
  const [family, bytes] = packet[0]! >> 4 === 4 ? ['IPv4', packet.subarray(12, 16)] as const : ['IPv6', packet.subarray(8, 24)] as const
  return `${textOf({ family, value: BigInt(`0x${bytes.toString('hex')}`) })} ${segment.readUInt16BE(0)}`
}

/** The bytes, and behind them others: whoever reads past the end gets another answer by one of them. */
export function withTails (bytes: Uint8Array): Uint8Array[] {
  return [0, 6, 255].map((tail) => Uint8Array.from([...bytes, ...new Array(300).fill(tail)]))
}

/** The bytes, with an end that is guarded. */
export function guarded (bytes: Uint8Array): Uint8Array {
  return new Proxy(bytes, {
    get (target, name) {
      if (typeof name === 'string' && /^\d+$/.test(name) && Number(name) >= target.length) throw new Error(`byte ${name} of ${target.length} was read`)
      return Reflect.get(target, name)
    }
  })
}

export const format: fc.Arbitrary<ToaFormat> = fc.tuple(fc.constantFrom(...kinds), fc.constantFrom('IPv4', 'IPv6'), fc.constantFrom('first', 'last'))
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

export function plainToa (bytes: Buffer, payload: boolean, formats: readonly ToaFormat[]): string {
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
  if (written.format.length < 20 && bytes.length > 40 - written.format.length) return 'no-room'
  return first.claim
}

/** Whether a packet of this kind is longer than its headers, by what the IP header says. */
export function plainHasPayload (packet: Buffer): boolean {
  const segment = plainTcp(packet)!
  const headers = packet.length - segment.length + (segment[12]! >> 4) * 4
  return (packet[0]! >> 4 === 4 ? packet.readUInt16BE(2) : packet.readUInt16BE(4) + 40) > headers
}
