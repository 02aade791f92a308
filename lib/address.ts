import { isIP } from 'node:net'
import ipaddr from 'ipaddr.js'

/** An IP address as four 32-bit words in host order, signed or not; IPv4 uses `w3` alone, the others are 0. */
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

/** Dotted text of an IPv4 address. */
export function formatIPv4 (word: number): string {
  // In pairs, for what is added to is copied.
  return ((dotted[word >>> 24] as string) + dotted[word >>> 16 & 0xff]) + ((dotted[word >>> 8 & 0xff] as string) + octets[word & 0xff])
}

const hex = Array.from({ length: 256 }, (_, n) => n.toString(16))
const padded = hex.map((digits) => digits.padStart(2, '0'))

function formatGroup (group: number): string {
  return group < 256 ? hex[group] as string : (hex[group >>> 8] as string) + (padded[group & 0xff] as string)
}

const groups = new Uint16Array(8)

/** RFC 5952 text of an IPv6 address. */
export function formatIPv6 (w0: number, w1: number, w2: number, w3: number): string {
  groups[0] = w0 >>> 16
  groups[1] = w0
  groups[2] = w1 >>> 16
  groups[3] = w1
  groups[4] = w2 >>> 16
  groups[5] = w2
  groups[6] = w3 >>> 16
  groups[7] = w3

  // RFC 5952 §4.2: '::' stands for the longest run of zero groups, the first of equals, never for a single one.
  let start = -1
  let length = 1
  let run = 0
  for (let i = 0; i < 8; i++) {
    run = groups[i] === 0 ? run + 1 : 0
    if (run > length) {
      start = i - run + 1
      length = run
    }
  }

  let text = ''
  for (let i = 0; i < 8; i++) {
    if (i === start) {
      text += '::'
      i += length - 1
    } else {
      if (i > 0 && i !== start + length) text += ':'
      text += formatGroup(groups[i] as number)
    }
  }
  return text
}

export function formatAddress (address: Address): string {
  return address.family === 'IPv4'
    ? formatIPv4(address.w3)
    : formatIPv6(address.w0, address.w1, address.w2, address.w3)
}

/** Parses an address without zone; IPv4-mapped IPv6 becomes IPv4. `undefined` for anything else. */
export function parseAddress (text: string): Address | undefined {
  const version = isIP(text)
  if (version === 0 || text.includes('%')) return undefined
  // An IPv4 address that Node.js has checked needs no second parser. ipaddr.js takes ::a.b.c.d for ::ffff:a.b.c.d.
  const bytes = version === 4
    ? text.split('.').map(Number)
    : ipaddr.process(text.replace(/^::(?=[^:]+$)/, '::0:')).toByteArray()
  const word = (at: number) =>
    (bytes[at] as number) << 24 | (bytes[at + 1] as number) << 16 | (bytes[at + 2] as number) << 8 | (bytes[at + 3] as number)
  return bytes.length === 4
    ? { family: 'IPv4', w0: 0, w1: 0, w2: 0, w3: word(0) }
    : { family: 'IPv6', w0: word(0), w1: word(4), w2: word(8), w3: word(12) }
}

/**
 * Canonical text of an address that came as text: RFC 5952, without zone, IPv4-mapped IPv6 as IPv4.
 * `undefined` for anything that is not an IP address.
 */
export function canonicalAddress (text: unknown): string | undefined {
  if (typeof text !== 'string') return undefined
  const zone = text.indexOf('%')
  const address = parseAddress(zone < 0 ? text : text.slice(0, zone))
  return address && formatAddress(address)
}
