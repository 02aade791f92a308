import type { ProxyFaultReason } from '../../types'
import { readDecimal, readIPv4, readIPv6 } from '../address/ascii'
import { PEEK_MAX } from '../kernel/calls'
import { createEndpoint, decodeAddress, type Endpoint, uint16, unmap, word } from '../kernel/sockaddr'
import { crc32c } from './crc32c'

// Headers of the PROXY protocol, as in HAProxy's proxy-protocol.txt.

/** "\r\n\r\n\0\r\nQUIT\n", the first 12 bytes of version 2. */
export const SIGNATURE: ReadonlyArray<number> = [0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a]
export const LOCAL = 0x20
export const PROXY = 0x21
// Address families and transport protocols of version 2.
export const UNSPEC = 0x00
export const TCP_OVER_IPV4 = 0x11
export const UDP_OVER_IPV4 = 0x12
export const TCP_OVER_IPV6 = 0x21
export const UDP_OVER_IPV6 = 0x22
export const UNIX_STREAM = 0x31
export const UNIX_DATAGRAM = 0x32
/** The TLV type of the checksum. */
export const CRC32C = 0x03
/** Bytes of version 2 before the addresses. */
export const V2_FIXED = 16
/** The longest header that is read, in bytes: one peek(). Version 2 allows 65,551. */
export const PROXY_HEADER_MAX = PEEK_MAX

export const V1_START = 'PROXY '
/** The longest line of version 1 in bytes, with CR and LF. */
export const V1_MAX = 107

/** Bytes of source and destination together, by the byte of address family and transport protocol. */
const addressLengths: Readonly<Record<number, number>> = {
  [UNSPEC]: 0,
  [TCP_OVER_IPV4]: 12,
  [UDP_OVER_IPV4]: 12,
  [TCP_OVER_IPV6]: 36,
  [UDP_OVER_IPV6]: 36,
  [UNIX_STREAM]: 216,
  [UNIX_DATAGRAM]: 216
}

const CR = 0x0d
const LF = 0x0a
const SPACE = 0x20
const protocols = ['TCP4 ', 'TCP6 ', 'UNKNOWN']

export interface ProxyHeader {
  /** In bytes; the client's data follows. */
  readonly length: number
  readonly version: 1 | 2
  /** Whether it names no client: LOCAL, UNKNOWN, UNSPEC or AF_UNIX. Both endpoints are then `undefined`. */
  readonly local: boolean
  readonly source: Endpoint | undefined
  readonly destination: Endpoint | undefined
  /** A copy of the TLVs, which are well-formed; empty for version 1, LOCAL and UNSPEC. */
  readonly tlvs: Uint8Array
}

/** Why the first bytes of a connection are not a valid header. */
export interface ProxyFault {
  readonly reason: Exclude<ProxyFaultReason, 'proxy-cut-short' | 'proxy-timeout' | 'proxy-evicted'>
  /** The offset of the first invalid byte. */
  readonly at: number
  /** What is wrong there, as text. */
  readonly what: string
}

/**
 * Decodes the header at the start of the first `length` bytes. Returns `'more'` if they are an incomplete header. A
 * header of version 2 is checked past its first 16 bytes when it is complete.
 */
export function decodeProxyHeader (bytes: Uint8Array, length: number): ProxyHeader | ProxyFault | 'more' {
  if (length === 0) return 'more'
  return bytes[0] === SIGNATURE[0] ? decodeV2(bytes, length) : decodeV1(bytes, length)
}

const fault = (reason: ProxyFault['reason'], at: number, what: string): ProxyFault => ({ reason, at, what })
const malformed = (at: number, what: string): ProxyFault => fault('proxy-malformed', at, what)
const missing = (at: number): ProxyFault => fault('proxy-missing', at, 'not the start of a PROXY header')

const none = new Uint8Array(0)

/** A header that names no client; its content is skipped. */
const nameless = (length: number, version: 1 | 2): ProxyHeader =>
  ({ length, version, local: true, source: undefined, destination: undefined, tlvs: none })

function decodeV2 (bytes: Uint8Array, length: number): ProxyHeader | ProxyFault | 'more' {
  for (let at = 0; at < SIGNATURE.length; at++) {
    if (at === length) return 'more'
    if (bytes[at] !== SIGNATURE[at]) return missing(at)
  }
  if (length === 12) return 'more'
  const command = bytes[12] as number
  if (command >>> 4 !== 2) return malformed(12, `the version is ${command >>> 4}, not 2`)
  if (command !== LOCAL && command !== PROXY) {
    return malformed(12, `the command is ${command & 15}, neither LOCAL (0) nor PROXY (1)`)
  }
  if (length === 13) return 'more'
  const family = bytes[13] as number
  const addressLength = addressLengths[family]
  if (addressLength === undefined && command === PROXY) {
    return malformed(13, `0x${hex(family)} is not an address family and transport protocol`)
  }
  if (length < V2_FIXED) return 'more'
  const end = V2_FIXED + uint16(bytes, 14)
  if (end > PROXY_HEADER_MAX) return fault('proxy-too-long', 14, `it has ${end} bytes, more than ${PROXY_HEADER_MAX}`)
  if (command === LOCAL || addressLength === undefined || family === UNSPEC) {
    return length < end ? 'more' : nameless(end, 2)
  }
  const tlvs = V2_FIXED + addressLength
  if (end < tlvs) {
    return malformed(14, `the length is ${end - V2_FIXED}, the addresses alone have ${addressLength} bytes`)
  }
  if (length < end) return 'more'
  return tlvFault(bytes, tlvs, end) ?? readV2(bytes, family >>> 4, tlvs, end)
}

function readV2 (bytes: Uint8Array, family: number, tlvs: number, length: number): ProxyHeader {
  const ports = tlvs - 4
  const local = family === 3
  return {
    length,
    version: 2,
    local,
    source: local ? undefined : endpointAt(bytes, family, V2_FIXED, ports),
    destination: local ? undefined : endpointAt(bytes, family, V2_FIXED + (ports - V2_FIXED) / 2, ports + 2),
    tlvs: tlvs === length ? none : copy(bytes, tlvs, length)
  }
}

function endpointAt (bytes: Uint8Array, family: number, address: number, port: number): Endpoint {
  const endpoint = createEndpoint()
  decodeAddress(bytes, address, family === 2, endpoint)
  endpoint.port = uint16(bytes, port)
  return endpoint
}

/** What is wrong with the TLVs from `start` to the header's end at `end`. */
function tlvFault (bytes: Uint8Array, start: number, end: number): ProxyFault | undefined {
  let checksum = 0
  for (let at = start; at < end;) {
    if (at + 3 > end) return malformed(at, 'the header ends within the type and length of a TLV')
    const size = uint16(bytes, at + 1)
    if (at + 3 + size > end) return malformed(at + 1, `a TLV has ${size} bytes, the header only ${end - at - 3} more`)
    if (bytes[at] === CRC32C) {
      if (size !== 4) return malformed(at + 1, `a CRC32C checksum has ${size} bytes, not 4`)
      if (checksum !== 0) return malformed(at, 'a second checksum')
      checksum = at + 3
    }
    at += 3 + size
  }
  if (checksum === 0) return undefined
  const expected = crc32c(bytes, end, checksum)
  const found = word(bytes, checksum) >>> 0
  return found === expected
    ? undefined
    : fault('proxy-checksum', checksum, `the CRC32C checksum is ${hex(found, 8)}, but should be ${hex(expected, 8)}`)
}

function decodeV1 (bytes: Uint8Array, length: number): ProxyHeader | ProxyFault | 'more' {
  const matched = matching(bytes, length, 0, V1_START)
  if (matched < V1_START.length) return matched === length ? 'more' : missing(matched)
  const start = V1_START.length
  let at = start
  let protocol: string | undefined
  for (const name of protocols) {
    const end = start + matching(bytes, length, start, name)
    if (end > at) at = end
    if (end === start + name.length) protocol = name
  }
  if (protocol === undefined) {
    return at === length ? 'more' : malformed(at, 'the protocol must be TCP4, TCP6 or UNKNOWN')
  }
  for (const behind = at; at < length && bytes[at] !== CR; at++) {
    if (at >= V1_MAX - 2) return fault('proxy-too-long', at, `the line does not end within ${V1_MAX} bytes`)
    const byte = bytes[at] as number
    const allowed = protocol !== 'UNKNOWN'
      ? isAddressByte(byte, protocol === 'TCP6 ')
      : at > behind ? byte !== LF : byte === SPACE
    if (!allowed) return malformed(at, `byte 0x${hex(byte)} is not allowed in a line of ${protocol.trimEnd()}`)
  }
  if (at >= length - 1) return 'more'
  if (bytes[at + 1] !== LF) return malformed(at + 1, 'CR without LF')
  if (protocol === 'UNKNOWN') return nameless(at + 2, 1)
  return readV1(bytes, start, at, protocol === 'TCP6 ')
}

/** How many characters of the text are at `at`. */
function matching (bytes: Uint8Array, length: number, at: number, text: string): number {
  let count = 0
  while (count < text.length && at + count < length && bytes[at + count] === text.charCodeAt(count)) count++
  return count
}

/** Digits, dots and spaces; for IPv6 also colons and letters from a to f. */
function isAddressByte (byte: number, ipv6: boolean): boolean {
  return (byte >= 0x30 && byte <= 0x39) || byte === 0x2e || byte === SPACE ||
    (ipv6 && (byte === 0x3a || (byte >= 0x61 && byte <= 0x66) || (byte >= 0x41 && byte <= 0x46)))
}

/** Decodes the addresses and ports between "PROXY " and the CR at `end`. */
function readV1 (bytes: Uint8Array, start: number, end: number, ipv6: boolean): ProxyHeader | ProxyFault {
  // The start of each field, and of a surplus one.
  const fields = [start]
  for (let at = start; at <= end; at++) if (bytes[at] === SPACE || at === end) fields.push(at + 1)
  if (fields.length !== 6) {
    return malformed(end, `${fields.length - 2} fields follow, not addresses and ports of source and destination`)
  }
  const source = createEndpoint()
  const destination = createEndpoint()
  for (let index = 1; index < 5; index++) {
    const from = fields[index] as number
    const to = (fields[index + 1] as number) - 1
    const into = index % 2 === 1 ? source : destination
    const read = index > 2
      ? (into.port = readDecimal(bytes, from, to, 0xffff)) >= 0
      : ipv6 ? readAddress6(bytes, from, to, into) : readIPv4(bytes, from, to, into)
    if (!read) return malformed(from, index > 2 ? 'not a port' : `not an IPv${ipv6 ? 6 : 4} address`)
  }
  return { length: end + 2, version: 1, local: false, source, destination, tlvs: none }
}

function readAddress6 (bytes: Uint8Array, from: number, to: number, into: Endpoint): boolean {
  if (!readIPv6(bytes, from, to, into)) return false
  into.family = 'IPv6'
  unmap(into)
  return true
}

const hex = (value: number, digits = 2): string => value.toString(16).padStart(digits, '0')

function copy (bytes: Uint8Array, from: number, to: number): Uint8Array {
  const copied = new Uint8Array(to - from)
  for (let i = 0; i < copied.length; i++) copied[i] = bytes[from + i] as number
  return copied
}
