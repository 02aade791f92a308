// Parses numbers and addresses in ASCII bytes. With strings and parseAddress() a PROXY header of version 1 takes five
// to ten times as long: 5.5 µs for TCP4 and 13.6 µs for TCP6.

const DOT = 0x2e
const COLON = 0x3a

/** A decimal number without sign or leading zeros, up to `max`; -1 for anything else. */
export function readDecimal (bytes: Uint8Array, from: number, to: number, max: number): number {
  if (from === to || (bytes[from] === 0x30 && to - from > 1)) return -1
  let value = 0
  for (let at = from; at < to; at++) {
    const digit = (bytes[at] as number) - 0x30
    if (digit < 0 || digit > 9) return -1
    value = value * 10 + digit
    if (value > max) return -1
  }
  return value
}

/** The 32-bit number of a dotted decimal address, unsigned; -1 for anything else. */
export function readIPv4 (bytes: Uint8Array, from: number, to: number): number {
  let value = 0
  let parts = 0
  for (let at = from; at <= to; at++) {
    if (at < to && bytes[at] !== DOT) continue
    const octet = readDecimal(bytes, from, at, 255)
    if (octet < 0 || ++parts > 4) return -1
    value = value * 256 + octet
    from = at + 1
  }
  return parts === 4 ? value : -1
}

/** Parses an IPv6 address without zone (RFC 4291 §2.2) into eight groups; false for anything else. */
export function readIPv6 (bytes: Uint8Array, from: number, to: number, groups: Uint16Array): boolean {
  let at = from
  let count = 0
  // The number of groups before "::".
  let gap = -1
  if (to - at >= 2 && bytes[at] === COLON && bytes[at + 1] === COLON) {
    gap = 0
    at += 2
  }
  while (at < to) {
    const start = at
    let group = 0
    for (let digit; at < to && (digit = hexDigit(bytes[at] as number)) >= 0; at++) group = group << 4 | digit
    if (at < to && bytes[at] === DOT) {
      const ipv4 = readIPv4(bytes, start, to)
      if (ipv4 < 0 || count > 6) return false
      groups[count++] = ipv4 >>> 16
      groups[count++] = ipv4 & 0xffff
      break
    }
    if (at === start || at - start > 4 || count === 8) return false
    groups[count++] = group
    if (at === to) break
    if (bytes[at++] !== COLON || at === to) return false
    if (bytes[at] === COLON) {
      if (gap >= 0) return false
      gap = count
      at++
    }
  }
  if (gap < 0) return count === 8
  if (count === 8) return false
  groups.copyWithin(8 - count + gap, gap, count)
  groups.fill(0, gap, 8 - count + gap)
  return true
}

function hexDigit (byte: number): number {
  if (byte >= 0x30 && byte <= 0x39) return byte - 0x30
  const letter = byte | 0x20
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1
}
