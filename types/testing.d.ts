import type { RealAddress, Reason, Source, TransportPeer } from '.'

/** A client that a request of `inject()` seems to come from. */
export interface TestClient {
  /** An IP address without zone; left out: none is known. */
  address?: string
  /** The client's TCP port. */
  port?: number
  /** @default 'vtoa' */
  source?: Source
  /** @default 'trusted' */
  trust?: RealAddress['trust']
  /** Why this is the answer, as `'no-toa'`. */
  reason?: Reason
  /** Who sent the packets. */
  transportPeer?: TransportPeer
}

/**
 * For tests of one's own server: options for `inject()` that let the request come from a client.
 *
 *     const response = await app.inject({ url: '/', ...fromClient('203.0.113.7') })
 *
 * `request.realAddress` is what is given here; `admit` is asked about it, and if it does not return `true`, `inject()`
 * rejects with `LIGHT_ECONNRESET`, as a client's connection would be reset. Throws `FST_REAL_IP_INVALID_OPTION`.
 */
export function fromClient (client: TestClient | string): { Request: object }
