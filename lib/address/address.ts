import { readIPv4, readIPv6 } from './ascii'

/** An IP address as four 32-bit words in host byte order, signed or unsigned. IPv4 uses only `w3`; the others are 0. */
export interface Address {
  readonly family: 'IPv4' | 'IPv6'
  readonly w0: number
  readonly w1: number
  readonly w2: number
  readonly w3: number
}

export function sameAddress (a: Address, b: Address): boolean {
  return a.w3 === b.w3 && a.family === b.family && a.w0 === b.w0 && a.w1 === b.w1 && a.w2 === b.w2
}

const octets = Array.from({ length: 256 }, (_, n) => String(n))
const dotted = octets.map((octet) => octet + '.')

/** Dotted decimal text of an IPv4 address. */
export function formatIPv4 (word: number): string {
  return (dotted[word >>> 24] as string) + dotted[word >>> 16 & 0xff] + dotted[word >>> 8 & 0xff] + octets[word & 0xff]
}

const hex = Array.from({ length: 256 }, (_, n) => n.toString(16))
const padded = hex.map((digits) => digits.padStart(2, '0'))
const following = hex.map((digits) => ':' + digits)

// RFC 5952 §4.2: '::' replaces the longest run of two or more zero groups, the first of equals. Indexed by the set of
// zero groups (bit 0: first group): the run's start in the upper four bits, its end in the lower ones; 8 and 9 if there
// is none.
const runs = Uint8Array.from({ length: 256 }, (_, zeros) => {
  let start = 8
  let length = 1
  let run = 0
  for (let i = 0; i < 8; i++) {
    run = (zeros >>> i & 1) === 1 ? run + 1 : 0
    if (run > length) {
      start = i - run + 1
      length = run
    }
  }
  return start << 4 | start + length
})

/** RFC 5952 text of an IPv6 address. */
export function formatIPv6 (w0: number, w1: number, w2: number, w3: number): string {
  const run = runs[zerosOf(w0) | zerosOf(w1) << 2 | zerosOf(w2) << 4 | zerosOf(w3) << 6] as number
  const start = run >>> 4
  const end = run & 15
  let text = start === 0 ? ':' : hexOf(w0 >>> 16)
  for (let i = start === 0 ? end : 1; i < 8; i++) {
    if (i === start) {
      text += ':'
      i = end - 1
      continue
    }
    const word = i < 4 ? (i < 2 ? w0 : w1) : (i < 6 ? w2 : w3)
    const group = (i & 1) === 1 ? word & 0xffff : word >>> 16
    text += group < 256
      ? following[group] as string
      : (following[group >>> 8] as string) + (padded[group & 0xff] as string)
  }
  return end === 8 ? text + ':' : text
}

const zerosOf = (word: number): number => (word >>> 16 === 0 ? 1 : 0) | ((word & 0xffff) === 0 ? 2 : 0)

const hexOf = (group: number): string =>
  group < 256 ? hex[group] as string : (hex[group >>> 8] as string) + (padded[group & 0xff] as string)

export function formatAddress (address: Address): string {
  return address.family === 'IPv4'
    ? formatIPv4(address.w3)
    : formatIPv6(address.w0, address.w1, address.w2, address.w3)
}

// The longest address: ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255.
const characters = new Uint8Array(45)
const words = { w0: 0, w1: 0, w2: 0, w3: 0 }

const COLON = 0x3a

/** Parses an address without zone; IPv4-mapped IPv6 becomes IPv4. `undefined` for anything else. */
export function parseAddress (text: string): Address | undefined {
  const { length } = text
  if (length > characters.length) return undefined
  let isIPv4 = true
  for (let i = 0; i < length; i++) {
    const code = text.charCodeAt(i)
    // An element would keep only its lower 8 bits.
    if (code > 0x7f) return undefined
    if (code === COLON) isIPv4 = false
    characters[i] = code
  }
  if (isIPv4) {
    return readIPv4(characters, 0, length, words) ? { family: 'IPv4', w0: 0, w1: 0, w2: 0, w3: words.w3 } : undefined
  }
  if (!readIPv6(characters, 0, length, words)) return undefined
  const { w0, w1, w2, w3 } = words
  return w0 === 0 && w1 === 0 && w2 === 0xffff
    ? { family: 'IPv4', w0: 0, w1: 0, w2: 0, w3 }
    : { family: 'IPv6', w0, w1, w2, w3 }
}

/**
 * The canonical text of an address: RFC 5952, without zone, IPv4-mapped IPv6 as IPv4. `undefined` if it is not an IP
 * address.
 */
export function canonicalAddress (text: unknown): string | undefined {
  if (typeof text !== 'string') return undefined
  const zone = text.indexOf('%')
  const address = parseAddress(zone < 0 ? text : text.slice(0, zone))
  return address && formatAddress(address)
}
