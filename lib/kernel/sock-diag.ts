import { endianness } from 'node:os'
import {
  AF_INET6, IPPROTO_TCP, NLM_F_DUMP, NLM_F_MULTI, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, SOCK_DIAG_BY_FAMILY,
  TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_LISTEN
} from './constants'
import { decodeAddress, type Endpoint } from './sockaddr'

// sizeof(struct nlmsghdr), sizeof(struct inet_diag_msg), and the offset of its cookie; <linux/netlink.h>,
// <linux/inet_diag.h>
const NLMSG_HEADER = 16
const INET_DIAG_MSG = 72
const COOKIE = 44

/** The length of a request in bytes: struct nlmsghdr and struct inet_diag_req_v2. */
export const REQUEST = NLMSG_HEADER + 56

// Netlink uses host byte order.
const little = endianness() === 'LE'

/** Encodes a dump of the live connections of `family` (AF_INET or AF_INET6) with this local port. */
export function encodeDump (into: Uint8Array, family: number, localPort: number): void {
  const view = header(into, family, NLM_F_REQUEST | NLM_F_DUMP)
  // Skips TIME_WAIT and SYN_RECV, of which a flood leaves many.
  view.setUint32(NLMSG_HEADER + 4, 1 << TCP_ESTABLISHED | 1 << TCP_CLOSE_WAIT, little)
  view.setUint16(NLMSG_HEADER + 8, localPort)
}

/**
 * Encodes a lookup of the one TCP socket between two sockaddrs of one family, as getsockname(2) and getpeername(2) give
 * them. The kernel refuses if the socket's SO_COOKIE differs.
 */
export function encodeExact (
  into: Uint8Array, family: number, local: Uint8Array, peer: Uint8Array, cookie: Uint8Array
): void {
  const view = header(into, family, NLM_F_REQUEST)
  view.setUint32(NLMSG_HEADER + 4, 0xffffffff, little)
  const [address, length] = family === AF_INET6 ? [8, 16] : [4, 4]
  into.set(local.subarray(2, 4), NLMSG_HEADER + 8)
  into.set(peer.subarray(2, 4), NLMSG_HEADER + 10)
  into.set(local.subarray(address, address + length), NLMSG_HEADER + 12)
  into.set(peer.subarray(address, address + length), NLMSG_HEADER + 28)
  // A link-local connection is bound to the interface of its sockaddr_in6.
  if (family === AF_INET6) into.set(peer.subarray(24, 28), NLMSG_HEADER + 44)
  into.set(cookie.subarray(0, 8), NLMSG_HEADER + 48)
}

function header (into: Uint8Array, family: number, flags: number): DataView {
  into.fill(0, 0, REQUEST)
  const view = new DataView(into.buffer, into.byteOffset, REQUEST)
  view.setUint32(0, REQUEST, little)
  view.setUint16(4, SOCK_DIAG_BY_FAMILY, little)
  view.setUint16(6, flags, little)
  into[NLMSG_HEADER] = family
  into[NLMSG_HEADER + 1] = IPPROTO_TCP
  return view
}

/**
 * What follows after one read: more, nothing, or an unusable reply. A refusal (ENOENT: no such connection; ESTALE:
 * another one) is a complete reply.
 */
export type Rest = 'more' | 'done' | 'broken'

/** Decodes the messages of one read, and calls `found` with each connection's cookie, its remote endpoint in `into`. */
export function decodeReplies (
  bytes: Uint8Array, length: number, into: Endpoint, found: (cookie: bigint) => void
): Rest {
  const view = new DataView(bytes.buffer, bytes.byteOffset, length)
  let at = 0
  while (at < length) {
    if (at + NLMSG_HEADER > length) return 'broken'
    const size = view.getUint32(at, little)
    if (size < NLMSG_HEADER || at + size > length) return 'broken'
    const body = at + NLMSG_HEADER
    const type = view.getUint16(at + 4, little)
    if (type === NLMSG_DONE || type === NLMSG_ERROR) return 'done'
    // An exact lookup returns the listener if no connection matches.
    if (type === SOCK_DIAG_BY_FAMILY && size >= NLMSG_HEADER + INET_DIAG_MSG && bytes[body + 1] !== TCP_LISTEN) {
      into.port = view.getUint16(body + 6)
      decodeAddress(bytes, body + 24, bytes[body] === AF_INET6, into)
      found(view.getBigUint64(body + COOKIE, little))
    }
    // Only the messages of a dump have NLM_F_MULTI; an exact lookup has a single reply.
    if ((view.getUint16(at + 6, little) & NLM_F_MULTI) === 0) return 'done'
    at += size + 3 & ~3
  }
  return 'more'
}
