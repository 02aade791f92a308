// struct sockaddr_in and sockaddr_in6 as Linux lays them out, <linux/in.h> and <linux/in6.h>.
export const AF_INET = 2
export const AF_INET6 = 10

/** sizeof(struct sockaddr_storage), in bytes: room for any answer. */
export const SOCKADDR_STORAGE = 128

/**
 * An address and port as numbers: what a source writes and the resolver copies, so that reading a connection
 * allocates no text. One is reused for all connections: copy out of it at once.
 */
export interface Endpoint {
  family: 'IPv4' | 'IPv6'
  port: number
  /** The address as 32-bit words in host order; IPv4 uses `w3` alone. */
  w0: number
  w1: number
  w2: number
  w3: number
}

export function createEndpoint (): Endpoint {
  return { family: 'IPv4', port: 0, w0: 0, w1: 0, w2: 0, w3: 0 }
}

/** The 32-bit number that stands in network byte order at `at`, as a signed integer. */
function word (bytes: Uint8Array, at: number): number {
  return (bytes[at] as number) << 24 | (bytes[at + 1] as number) << 16 | (bytes[at + 2] as number) << 8 |
    (bytes[at + 3] as number)
}

/**
 * Decodes a sockaddr by its `sa_family` alone: the module family leaves `optlen` as it was passed.
 * IPv4-mapped IPv6 becomes IPv4. False, and `into` untouched, for any other family.
 */
export function decodeSockaddr (bytes: Uint8Array, family: number, into: Endpoint): boolean {
  if (family === AF_INET) {
    into.family = 'IPv4'
    into.w3 = word(bytes, 4)
  } else if (family === AF_INET6) {
    into.w0 = word(bytes, 8)
    into.w1 = word(bytes, 12)
    into.w2 = word(bytes, 16)
    into.w3 = word(bytes, 20)
    into.family = into.w0 === 0 && into.w1 === 0 && into.w2 === 0xffff ? 'IPv4' : 'IPv6'
  } else {
    return false
  }
  into.port = (bytes[2] as number) << 8 | (bytes[3] as number)
  return true
}
