import { decodeIPv4, decodeIPv6, type Endpoint } from './sockaddr'

// IANA protocol numbers; those that an IPv6 header chain can hold before TCP.
const HOP_BY_HOP = 0
const TCP = 6
const ROUTING = 43
const FRAGMENT = 44
const AUTHENTICATION = 51
const DESTINATION_OPTIONS = 60

/** Where the TCP header stands in a saved SYN (RFC 791, RFC 8200), or -1. Nothing is read past `length`. */
export function tcpHeaderAt (bytes: Uint8Array, length: number): number {
  if (length < 40) return -1
  const version = (bytes[0] as number) >>> 4
  if (version === 4) {
    const header = ((bytes[0] as number) & 15) * 4
    return header >= 20 && bytes[9] === TCP && header + 20 <= length ? header : -1
  }
  if (version !== 6) return -1
  let next = bytes[6] as number
  let at = 40
  while (at + 20 <= length) {
    if (next === TCP) return at
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

/** Where the options of the TCP header at `tcp` end; the header's own end where it says more than there is. */
export function tcpOptionsEnd (bytes: Uint8Array, length: number, tcp: number): number {
  return Math.min(tcp + ((bytes[tcp + 12] as number) >>> 4) * 4, length)
}

/** Whether the SYN carried data, by the length in its IP header: the saved SYN is its headers alone. */
export function hasPayload (bytes: Uint8Array, tcp: number): boolean {
  const header = tcp + ((bytes[tcp + 12] as number) >>> 4) * 4
  const total = (bytes[0] as number) >>> 4 === 4
    ? (bytes[2] as number) << 8 | (bytes[3] as number)
    : 40 + ((bytes[4] as number) << 8 | (bytes[5] as number))
  return total > header
}

/**
 * Decodes who sent a SYN: source address and port of its IP and TCP headers, as TCP_SAVED_SYN gives them. An address of
 * an IPv6 header stays IPv6 whatever it looks like. False, and `into` untouched, for bytes that are no such headers.
 */
export function decodeSavedSyn (bytes: Uint8Array, length: number, into: Endpoint): boolean {
  const tcp = tcpHeaderAt(bytes, length)
  if (tcp < 0) return false
  decodeSender(bytes, tcp, into)
  return true
}

/** The same, where the TCP header is known to stand at `tcp`. */
export function decodeSender (bytes: Uint8Array, tcp: number, into: Endpoint): void {
  if ((bytes[0] as number) >>> 4 === 4) {
    decodeIPv4(bytes, 12, into)
  } else {
    decodeIPv6(bytes, 8, into)
  }
  into.port = (bytes[tcp] as number) << 8 | (bytes[tcp + 1] as number)
}
