import { isIP, SocketAddress } from 'node:net'

const octets = Array.from({ length: 256 }, (_, n) => String(n))
const octet = (n: number) => octets[n & 0xff] as string

/** Dotted text of an IPv4 address, given as a 32-bit number in host order (signed or not). */
export function formatIPv4 (word: number): string {
  return octet(word >>> 24) + '.' + octet(word >>> 16) + '.' + octet(word >>> 8) + '.' + octet(word)
}

const groups = new Uint16Array(8)

/** RFC 5952 text of an IPv6 address, given as four 32-bit numbers in host order (signed or not). */
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
  for (let i = 0; i < 8; i++) {
    let end = i
    while (end < 8 && groups[end] === 0) end++
    if (end - i > length) {
      start = i
      length = end - i
    }
    if (end > i) i = end
  }

  let text = ''
  for (let i = 0; i < 8; i++) {
    if (i === start) {
      text += '::'
      i += length - 1
    } else {
      if (i > 0 && i !== start + length) text += ':'
      text += (groups[i] as number).toString(16)
    }
  }
  return text
}

/**
 * Canonical text of an address that came as text: RFC 5952, without zone, IPv4-mapped IPv6 as IPv4.
 * `undefined` for anything that is not an IP address.
 */
export function canonicalAddress (text: unknown): string | undefined {
  if (typeof text !== 'string') return undefined
  const zone = text.indexOf('%')
  const bare = zone < 0 ? text : text.slice(0, zone)
  switch (isIP(bare)) {
    case 4: return bare
    case 6: {
      const { address } = new SocketAddress({ address: bare, family: 'ipv6' })
      return /^::ffff:(\d+\.\d+\.\d+\.\d+)$/.exec(address)?.[1] ?? address
    }
    default: return undefined
  }
}
