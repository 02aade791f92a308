import { IPPROTO_TCP, TCPHDR_SYN } from './constants'
import { decodeIPv4, decodeIPv6, type Endpoint, uint16 } from './sockaddr'

// IANA protocol numbers of the IPv6 extension headers that may precede TCP.
const HOP_BY_HOP = 0
const ROUTING = 43
const FRAGMENT = 44
const AUTHENTICATION = 51
const DESTINATION_OPTIONS = 60
// The flags in a struct tcphdr, as tcp_flag_byte() of <net/tcp.h> reads them.
const FLAGS = 13

/** The offset of the TCP header in a saved SYN (RFC 791, RFC 8200), or -1. Reads nothing past `length`. */
export function tcpHeaderAt (bytes: Uint8Array, length: number): number {
  if (length < 40) return -1
  const version = (bytes[0] as number) >>> 4
  if (version === 4) {
    const header = ((bytes[0] as number) & 15) * 4
    return header >= 20 && bytes[9] === IPPROTO_TCP && header + 20 <= length ? header : -1
  }
  if (version !== 6) return -1
  let next = bytes[6] as number
  let at = 40
  while (at + 20 <= length) {
    if (next === IPPROTO_TCP) return at
    const size = bytes[at + 1] as number
    switch (next) {
      case HOP_BY_HOP:
      case ROUTING:
      case DESTINATION_OPTIONS:
        next = bytes[at] as number
        at += (size + 1) * 8
        break
      case FRAGMENT:
        next = bytes[at] as number
        at += 8
        break
      case AUTHENTICATION:
        next = bytes[at] as number
        at += (size + 2) * 4
        break
      default: return -1
    }
  }
  return -1
}

/** The end of the options of the TCP header at `tcp`, `length` at most. */
export function tcpOptionsEnd (bytes: Uint8Array, length: number, tcp: number): number {
  return Math.min(tcp + ((bytes[tcp + 12] as number) >>> 4) * 4, length)
}

/** Whether the segment has the flag SYN. */
export function hasSyn (bytes: Uint8Array, tcp: number): boolean {
  return ((bytes[tcp + FLAGS] as number) & TCPHDR_SYN) !== 0
}

/** Whether the SYN carried data, by the length in its IP header: a saved SYN contains only headers. */
export function hasPayload (bytes: Uint8Array, tcp: number): boolean {
  const header = tcp + ((bytes[tcp + 12] as number) >>> 4) * 4
  const total = (bytes[0] as number) >>> 4 === 4
    ? uint16(bytes, 2)
    : 40 + uint16(bytes, 4)
  return total > header
}

/**
 * Decodes the source address and port of a SYN's IP and TCP headers, as TCP_SAVED_SYN gives them. An IPv6 address stays
 * IPv6, IPv4-mapped or not. Returns false, with `into` unchanged, for anything else.
 */
export function decodeSavedSyn (bytes: Uint8Array, length: number, into: Endpoint): boolean {
  const tcp = tcpHeaderAt(bytes, length)
  if (tcp < 0) return false
  decodeSender(bytes, tcp, into)
  return true
}

/** The same, with the offset of the TCP header given. */
export function decodeSender (bytes: Uint8Array, tcp: number, into: Endpoint): void {
  if ((bytes[0] as number) >>> 4 === 4) {
    decodeIPv4(bytes, 12, into)
  } else {
    decodeIPv6(bytes, 8, into)
  }
  into.port = uint16(bytes, tcp)
}
