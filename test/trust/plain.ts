import fc from 'fast-check'
import type { Address } from '../../lib/address/address'

// Second implementations, as plain as can be, for what lib/ does with words of 32 bits.

/** How many cases a property is tried with: more with the environment variable FASTIFY_REAL_IP_CASES. */
export const numRuns = Number(process.env.FASTIFY_REAL_IP_CASES ?? 10_000)

/** An address as one number. */
export interface Plain {
  readonly family: 'IPv4' | 'IPv6'
  readonly value: bigint
}

export const bitsOf = ({ family }: Pick<Plain, 'family'>): bigint => family === 'IPv4' ? 32n : 128n

export function plainOf ({ family, w0, w1, w2, w3 }: Address): Plain {
  const words = family === 'IPv4' ? [w3] : [w0, w1, w2, w3]
  return { family, value: words.reduce((value, word) => value << 32n | BigInt(word >>> 0), 0n) }
}

export function addressOf ({ family, value }: Plain): Address {
  const word = (shift: bigint) => Number(value >> shift & 0xffffffffn) | 0
  return { family, w0: word(96n), w1: word(64n), w2: word(32n), w3: word(0n) }
}

/** Text of an address, with every group of an IPv6 address in full. */
export function textOf ({ family, value }: Plain): string {
  const part = (index: number, bits: bigint) => value >> BigInt(index) * bits & (1n << bits) - 1n
  return family === 'IPv4'
    ? [3, 2, 1, 0].map((i) => part(i, 8n)).join('.')
    : [7, 6, 5, 4, 3, 2, 1, 0].map((i) => part(i, 16n).toString(16)).join(':')
}

/** The address that a text is, zones and whatever is around it being none of one. By the grammar of RFC 4291 §2.2. */
export function parsePlain (text: string): Plain | undefined {
  if (!text.includes(':')) {
    const octets = text.split('.')
    if (octets.length !== 4 || !octets.every((octet) => /^(?:0|[1-9]\d{0,2})$/.test(octet) && Number(octet) < 256)) return undefined
    return { family: 'IPv4', value: octets.reduce((value, octet) => value << 8n | BigInt(octet), 0n) }
  }
  const last = text.slice(text.lastIndexOf(':') + 1)
  if (last.includes('.')) {
    const tail = parsePlain(last)
    if (tail === undefined) return undefined
    return parsePlain(`${text.slice(0, -last.length)}${(tail.value >> 16n).toString(16)}:${(tail.value & 0xffffn).toString(16)}`)
  }
  const [left, right, ...more] = text.split('::').map((half) => half === '' ? [] : half.split(':')) as [string[], string[]?, ...string[][]]
  const zeros = 8 - left.length - (right?.length ?? 0)
  if (more.length > 0 || (right === undefined ? zeros !== 0 : zeros < 1)) return undefined
  const groups = [...left, ...Array<string>(zeros).fill('0'), ...right ?? []]
  if (!groups.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return undefined
  return { family: 'IPv6', value: groups.reduce((value, group) => value << 16n | BigInt(`0x${group}`), 0n) }
}

/** An IPv6 address that maps an IPv4 address is the IPv4 address. */
export function unmapped (plain: Plain): Plain {
  return plain.family === 'IPv6' && plain.value >> 32n === 0xffffn
    ? { family: 'IPv4', value: plain.value & 0xffffffffn }
    : plain
}

/** Whether an address has the first `prefix` bits of another. */
export function within (address: Plain, network: Plain, prefix: number): boolean {
  const rest = bitsOf(network) - BigInt(prefix)
  return address.family === network.family && address.value >> rest === network.value >> rest
}

const word32 = fc.nat({ max: 0xffffffff }).map(BigInt)
const ipv4: fc.Arbitrary<Plain> = word32.map((value) => ({ family: 'IPv4', value }))
const ipv6: fc.Arbitrary<Plain> = fc.tuple(word32, word32, word32, word32)
  .map((words) => ({ family: 'IPv6', value: words.reduce((value, word) => value << 32n | word, 0n) }))
// Where something is special, and beside it.
const edges = [
  0n, 0x0a000000n, 0x7f000000n, 0x7f000001n, 0xc0000200n, 0xe0000000n, 0xf0000000n, 0xffffffffn
]
const edge: fc.Arbitrary<Plain> = fc.oneof(
  fc.constantFrom(...edges).map((value) => ({ family: 'IPv4', value }) as const),
  fc.tuple(fc.constantFrom(0n, 0xffffn << 32n, 1n << 32n, 0xfe80n << 112n, 0xff00n << 112n, 0x20010db8n << 96n), fc.constantFrom(...edges))
    .map(([high, low]) => ({ family: 'IPv6', value: high | low }) as const)
)
const besideEdge: fc.Arbitrary<Plain> = fc.tuple(edge, fc.constantFrom(-1n, 0n, 1n))
  .map(([{ family, value }, step]) => ({ family, value: BigInt.asUintN(Number(bitsOf({ family })), value + step) }))

/** Any address, and those at the edges of what is special more often. */
export const anyAddress: fc.Arbitrary<Plain> = fc.oneof(ipv4, ipv6, besideEdge)
