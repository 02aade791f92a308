import type { RealAddress, Reason, Source, TransportPeer } from '.'

/** The client of a request made with `inject()`. */
export interface TestClient {
  /** An IP address without zone; omitted: the address is unknown. */
  address?: string
  /** The client's TCP port, 1 to 65535; not checked. */
  port?: number
  /** @default 'vtoa' */
  source?: Source
  /** @default 'trusted' */
  trust?: RealAddress['trust']
  /** E.g. `'no-toa'`. */
  reason?: Reason
  /** The sender of the packets. */
  transportPeer?: TransportPeer
}

/**
 * For tests: options for `inject()` that make the request come from a client.
 *
 *     const response = await app.inject({ url: '/', ...fromClient('203.0.113.7') })
 *
 * `request.realAddress` has these values. `admit` is called with it; if it does not return `true`, `inject()` rejects
 * with `LIGHT_ECONNRESET`, as a client's connection would be reset.
 *
 * Throws `FST_REAL_IP_INVALID_OPTION` for an unknown property, or an invalid address, source or trust.
 */
export function fromClient (client: TestClient | string): { Request: object }
