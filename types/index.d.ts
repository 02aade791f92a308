/// <reference types="node" />

import type { FastifyPluginCallback, FastifyRequest } from 'fastify'
import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest, Http2Session, Http2Stream } from 'node:http2'
import type { Duplex } from 'node:stream'

declare module 'fastify' {
  interface FastifyRequest {
    /**
     * The client's address as canonical text (RFC 5952, no zone, IPv4-mapped IPv6 written as IPv4),
     * or `undefined` where none is known. Never throws. Same as `request.realAddress.address`.
     */
    readonly realIp: string | undefined
    /** The client's address with where it was learned and why this is the answer. Never throws. */
    readonly realAddress: fastifyRealIp.RealAddress
  }
  interface FastifyInstance {
    /** What `fastify-real-ip` offers outside requests. */
    readonly realIp: fastifyRealIp.RealIp
  }
}

type FastifyRealIp = FastifyPluginCallback<fastifyRealIp.FastifyRealIpOptions>

declare namespace fastifyRealIp {
  /**
   * A kernel source of the client's address:
   * - `'vtoa'`: `getsockopt(fd, IPPROTO_IP, 1348)`, answered by the `vtoa` kernel module
   *   (Alibaba Cloud Linux 3, kernel 5.10.134-17 or later).
   * - `'getpeername'`: `getpeername(2)`, which the `vtoa` module (kernel 5.10.134-15 or later) and other
   *   TOA modules rewrite. Without such a module it gives the transport peer: the answer alone does not tell which.
   */
  export type KernelSource = 'vtoa' | 'getpeername'

  /**
   * Where an address was learned: a kernel source; `'peer'`, the remote address that Node.js reports for the socket
   * (the last resort, on any platform); or `'none'`, no address is known.
   */
  export type Source = KernelSource | 'peer' | 'none'

  /**
   * Why no kernel source gave the answer:
   * - `'native-unavailable'`: the system calls cannot be made in this process (not Linux, koffi missing, addons forbidden).
   * - `'no-fd'`: the connection has no file descriptor.
   * - `'no-answer'`: every configured source failed; `attempts` has the reason of each.
   * - `'closed'`: the connection was already gone when the server handed it over.
   * - `'unobserved'`: the connection did not come in through a server of this plugin.
   * - `'injected'`: the request was made by `inject()`.
   * - `'no-address'`: the connection has no IP address (a Unix-domain socket, a stream that is no socket).
   */
  export type Reason =
    | 'native-unavailable'
    | 'no-fd'
    | 'no-answer'
    | 'closed'
    | 'unobserved'
    | 'injected'
    | 'no-address'

  /** What one source said when it had no address. */
  export interface Attempt {
    readonly source: KernelSource
    /**
     * The name of the system call's errno (`'ENOPROTOOPT'`: no module; `'ESRCH'`: no TOA on this connection),
     * or `'bad-family'`: the call succeeded with a `sa_family` that is neither `AF_INET` nor `AF_INET6`.
     */
    readonly reason: string
  }

  /** A client's address, with its provenance. Frozen; made when first asked for. */
  export interface RealAddress {
    /** RFC 5952 text without zone; an IPv4-mapped IPv6 address is given as IPv4. `undefined` where none is known. */
    readonly address: string | undefined
    /** The client's TCP port, 1 to 65535; `undefined` where none is known. */
    readonly port: number | undefined
    /** The address family, as `node:net` names it. */
    readonly family: 'IPv4' | 'IPv6' | undefined
    /** Where the address was learned. */
    readonly source: Source
    /** Why this is the answer; absent when a kernel source gave it. */
    readonly reason?: Reason
    /** The sources that were asked before this answer, in order, and what each said. */
    readonly attempts: ReadonlyArray<Attempt>
  }

  /** What `lookup` takes. */
  export type Connection = Duplex | Http2Session | Http2Stream | IncomingMessage | Http2ServerRequest | FastifyRequest

  export interface RealIp {
    /**
     * The address of the client behind a net or TLS socket, an HTTP/2 session or stream, a raw or a Fastify request.
     * For places without a Fastify request: `'upgrade'` and `clientError` handlers, `genReqId`, child loggers.
     * Never throws; for anything else the answer has source `'none'`.
     */
    lookup (connection: Connection): RealAddress
  }

  export interface FastifyRealIpOptions {
    /**
     * Kernel sources, tried in this order on each new connection.
     * @default ['vtoa', 'getpeername']
     */
    sources?: ReadonlyArray<KernelSource>
    /**
     * `true`: registering fails with `FST_REAL_IP_NATIVE_UNAVAILABLE` where none of `sources` can work.
     * @default false
     */
    require?: boolean
  }

  export const fastifyRealIp: FastifyRealIp
  export { fastifyRealIp as default }
}

/**
 * Gives `request.realIp`, `request.realAddress` and `app.realIp.lookup()`: the address of the client behind a FullNAT
 * balancer, read from the kernel once per connection.
 *
 * Registering fails with `FST_REAL_IP_INVALID_OPTION` for options it does not understand, with
 * `FST_REAL_IP_ALREADY_REGISTERED` where the server has the plugin with other options, and, with `require: true`,
 * with `FST_REAL_IP_NATIVE_UNAVAILABLE`.
 */
declare function fastifyRealIp (...params: Parameters<FastifyRealIp>): ReturnType<FastifyRealIp>
export = fastifyRealIp
