import { type Address, sameAddress } from '../address/address'
import { AF_INET, AF_INET6 } from './constants'

/** sizeof(struct sockaddr_storage) in bytes, enough for any address. */
export const SOCKADDR_STORAGE = 128
/** sizeof(struct sockaddr_in6), in bytes. */
export const SOCKADDR_IN6 = 28

/** An address and port as numbers. Most are reused for the next connection: copy at once. */
export interface Endpoint extends Address {
  family: 'IPv4' | 'IPv6'
  port: number
  w0: number
  w1: number
  w2: number
  w3: number
}

export function createEndpoint (): Endpoint {
  return { family: 'IPv4', port: 0, w0: 0, w1: 0, w2: 0, w3: 0 }
}

export function copyEndpoint (from: Readonly<Endpoint>, into: Endpoint): void {
  into.family = from.family
  into.port = from.port
  into.w0 = from.w0
  into.w1 = from.w1
  into.w2 = from.w2
  into.w3 = from.w3
}

/** A copy of an endpoint that is reused for other connections. */
export function keepEndpoint (endpoint: Readonly<Endpoint>): Endpoint {
  const copy = createEndpoint()
  copyEndpoint(endpoint, copy)
  return copy
}

export function sameEndpoint (a: Readonly<Endpoint>, b: Readonly<Endpoint>): boolean {
  return a.port === b.port && sameAddress(a, b)
}

/** The 16-bit number in network byte order at `at`. */
export function uint16 (bytes: Uint8Array, at: number): number {
  return (bytes[at] as number) << 8 | (bytes[at + 1] as number)
}

/** The 32-bit number in network byte order at `at`, signed. */
export function word (bytes: Uint8Array, at: number): number {
  return (bytes[at] as number) << 24 | (bytes[at + 1] as number) << 16 | (bytes[at + 2] as number) << 8 |
    (bytes[at + 3] as number)
}

/** Decodes the 4 bytes of an IPv4 address. */
export function decodeIPv4 (bytes: Uint8Array, at: number, into: Endpoint): void {
  into.family = 'IPv4'
  into.w0 = into.w1 = into.w2 = 0
  into.w3 = word(bytes, at)
}

/** Decodes the 16 bytes of an IPv6 address. */
export function decodeIPv6 (bytes: Uint8Array, at: number, into: Endpoint): void {
  into.family = 'IPv6'
  into.w0 = word(bytes, at)
  into.w1 = word(bytes, at + 4)
  into.w2 = word(bytes, at + 8)
  into.w3 = word(bytes, at + 12)
}

/** Converts an IPv4-mapped IPv6 address, ::ffff:a.b.c.d, to IPv4. */
export function unmap (endpoint: Endpoint): void {
  if (endpoint.w0 === 0 && endpoint.w1 === 0 && endpoint.w2 === 0xffff) {
    endpoint.family = 'IPv4'
    endpoint.w2 = 0
  }
}

/** Decodes the 16 bytes of an IPv6 address, or the 4 of an IPv4 address. IPv4-mapped IPv6 becomes IPv4. */
export function decodeAddress (bytes: Uint8Array, at: number, isIPv6: boolean, into: Endpoint): void {
  if (isIPv6) {
    decodeIPv6(bytes, at, into)
    unmap(into)
  } else {
    decodeIPv4(bytes, at, into)
  }
}

/**
 * Decodes a sockaddr by its `sa_family` only: modules leave `optlen` unchanged. IPv4-mapped IPv6 becomes IPv4. Returns
 * false, with `into` unchanged, for other families.
 */
export function decodeSockaddr (sockaddr: DataView, family: number, into: Endpoint): boolean {
  if (family === AF_INET) {
    into.family = 'IPv4'
    into.w0 = into.w1 = into.w2 = 0
    into.w3 = sockaddr.getInt32(4)
  } else if (family === AF_INET6) {
    into.family = 'IPv6'
    into.w0 = sockaddr.getInt32(8)
    into.w1 = sockaddr.getInt32(12)
    into.w2 = sockaddr.getInt32(16)
    into.w3 = sockaddr.getInt32(20)
    unmap(into)
  } else {
    return false
  }
  into.port = sockaddr.getUint16(2)
  return true
}
