/// <reference types="node" />

import type { FastifyPluginCallback, FastifyRequest, RawServerBase, RouteGenericInterface } from 'fastify'
import type { IncomingMessage } from 'node:http'
import type { Http2ServerRequest, Http2Session, Http2Stream } from 'node:http2'
import type { Duplex } from 'node:stream'

declare module 'fastify' {
  interface FastifyRequest {
    /**
     * The client's address as canonical text (RFC 5952, no zone, IPv4-mapped IPv6 written as IPv4),
     * or `undefined` if it is unknown. Never throws. Same as `request.realAddress.address`.
     */
    readonly realIp: string | undefined
    /** The client's address with its source and the reason for this answer. Never throws. */
    readonly realAddress: fastifyRealIp.RealAddress
  }
  interface FastifyInstance {
    /** The API of `fastify-real-ip` outside requests. */
    readonly realIp: fastifyRealIp.RealIp
  }
}

type FastifyRealIp = FastifyPluginCallback<fastifyRealIp.FastifyRealIpOptions>

declare namespace fastifyRealIp {
  /**
   * A kernel source of the client's address:
   * - `'vtoa'`: `getsockopt(fd, IPPROTO_IP, 1348)`, answered by the `vtoa` kernel module
   *   (Alibaba Cloud Linux 3, kernel 5.10.134-17 or later), or by `fastify-real-ip attach` (Linux 5.10 or later).
   *   `realAddress` cannot tell which: the system call is the same.
   * - `'getpeername'`: `getpeername(2)`, which the `vtoa` module (kernel 5.10.134-15 or later) and other
   *   TOA modules rewrite. Without such a module it returns the transport peer; the answer does not tell which.
   * - `'nat64'`: `getsockopt(fd, IPPROTO_IP, 4096)`, answered by DPVS's toa module for IPv6 clients of an IPv4 server.
   * - `'saved-syn'`: TOA on the connection's SYN, which Linux 4.3 and later can save (tcp(7) `TCP_SAVED_SYN`); needs no
   *   module. Only for balancers that write TOA on the SYN; requires `toa` and a list of `trustedPeers`.
   */
  export type KernelSource = 'vtoa' | 'nat64' | 'getpeername' | 'saved-syn'

  /**
   * The source of an address:
   * - a kernel source;
   * - `'proxy-protocol'`: the PROXY header at the start of the connection;
   * - `'transport-peer'`: who really sent the packets, from the saved SYN (tcp(7) `TCP_SAVED_SYN`) or sock_diag(7);
   * - `'forwarded'`: a forwarding header from a proxy in `forwarded.trust`;
   * - `'peer'`: the remote address that Node.js reports for the socket (the last resort, on any platform);
   * - `'none'`: the address is unknown.
   */
  export type Source = KernelSource | 'proxy-protocol' | 'transport-peer' | 'forwarded' | 'peer' | 'none'

  /**
   * The reason for an answer. With `trustedPeers`:
   * - `'no-toa'`: a trusted peer claims no client; the answer is the peer's own address.
   * - `'untrusted-peer'`: a peer that is not in the list claims a client; the answer is the peer's own address.
   * - `'unverified-peer'`: the sender of the packets is unknown.
   * - `'implausible'`: the claim is an address that no client can have (`0.0.0.0/8`, loopback, multicast, …).
   * - `'ambiguous'`: two TOAs on the SYN differ, or the SYN and a kernel module do.
   * - `'proxy-local'`: a PROXY header names no client (a balancer's health check); the answer is the peer's address.
   * - `'forwarded-malformed'`: the next hop of the forwarding header is not an address, or one that no client can have;
   *   the answer is the last valid hop.
   * - `'forwarded-missing'`: a proxy in `forwarded.trust` named no client: it sent no header, or no hop before itself.
   *   The answer is its address, which all of its clients share.
   *
   * If no kernel source gave the answer:
   * - `'native-unavailable'`: this process cannot make the system calls (not Linux, koffi missing, addons forbidden).
   * - `'no-fd'`: the connection has no file descriptor.
   * - `'no-answer'`: every configured source failed; see `attempts`.
   * - `'closed'`: the connection was closed before the server emitted it.
   * - `'unobserved'`: no server of this plugin accepted the connection.
   * - `'injected'`: the request was made by `inject()`.
   * - `'no-address'`: the connection has no IP address (a Unix-domain socket, a stream that is no socket).
   */
  export type Reason =
    | 'no-toa'
    | 'untrusted-peer'
    | 'unverified-peer'
    | 'implausible'
    | 'ambiguous'
    | 'proxy-local'
    | ProxyFaultReason
    | 'forwarded-malformed'
    | 'forwarded-missing'
    | 'native-unavailable'
    | 'no-fd'
    | 'no-answer'
    | 'closed'
    | 'unobserved'
    | 'injected'
    | 'no-address'

  /** A source that was asked and claimed no client. */
  export interface Attempt {
    /** The source. */
    readonly source: KernelSource
    /**
     * The name of the system call's errno (`'ENOPROTOOPT'`: no module; `'ESRCH'`, with `'nat64'` `'EINVAL'`: no TOA on
     * this connection; with `'nat64'` `'EFAULT'`: TOA, but not of NAT64), or
     * - `'bad-family'`: the call succeeded with a `sa_family` that is neither `AF_INET` nor `AF_INET6`;
     * - `'transport-peer'`: it returned the transport peer, and so claims no client;
     * - of `'saved-syn'`: `'no-saved-syn'` (SYN cookies, or a connection that is older than the plugin's setting on the
     *   listener), `'no-option'`, `'out-of-place'`, `'no-room'`, `'syn-payload'`, `'ambiguous'`: why its TOA is not
     *   used.
     */
    readonly reason: string
  }

  /** A client's address, with its provenance. Frozen; created on first access. */
  export interface RealAddress {
    /** RFC 5952 text without zone; IPv4-mapped IPv6 is written as IPv4. `undefined` if unknown. */
    readonly address: string | undefined
    /** The client's TCP port, 1 to 65535; `undefined` if unknown. */
    readonly port: number | undefined
    /** The address family, as `node:net` names it. */
    readonly family: 'IPv4' | 'IPv6' | undefined
    /** The source of the address. */
    readonly source: Source
    /** The reason for this answer; absent for an undisputed claim, and for an untrusted peer that claims no client. */
    readonly reason?: Reason
    /**
     * - `'trusted'`: the transport peer is in `trustedPeers`, or the list is `'any'`; with `source: 'forwarded'`,
     *   proxies in `forwarded.trust` wrote the address.
     * - `'untrusted'`: the transport peer is known and not in `trustedPeers`; its claim was not believed.
     * - `'unverified'`: `trustedPeers` is set, and the sender of the packets is unknown.
     * - `'unchecked'`: `trustedPeers` is not set: anyone who reaches the port may have forged the address.
     */
    readonly trust: 'trusted' | 'untrusted' | 'unverified' | 'unchecked'
    /**
     * The sender of the packets; `undefined` if unknown. Without `trustedPeers` and `forwarded` it is looked up only
     * for a claim that no client can have.
     */
    readonly transportPeer: TransportPeer | undefined
    /**
     * With `virtualServer: true`: the virtual server that the client connected to, if vtoa knows it and the
     * connection's TOA is believed.
     */
    readonly virtualServer?: VirtualServer
    /** The other contents of the connection's PROXY header, if the header is believed. */
    readonly proxyProtocol?: ProxyProtocol
    /** With `source: 'forwarded'`: the answer for the connection that carried the header. */
    readonly via?: RealAddress
    /** The sources that were asked before and claimed no client, in order, with their reasons. */
    readonly attempts: ReadonlyArray<Attempt>
  }

  /** A balancer's virtual server, as vtoa's optnames 1345 and 1347 return it. */
  export interface VirtualServer {
    /** The id of the VPC; `undefined` if the connection did not come through one. */
    readonly vpcId: number | undefined
    /** RFC 5952 text. */
    readonly address: string
    /** The address family, as `node:net` names it. */
    readonly family: 'IPv4' | 'IPv6'
    /** The TCP port, 1 to 65535; `undefined` if unknown. */
    readonly port: number | undefined
  }

  /**
   * Faults of a mandatory PROXY header:
   * - `'proxy-missing'`: the connection does not begin with a PROXY header.
   * - `'proxy-malformed'`: the header violates proxy-protocol.txt.
   * - `'proxy-too-long'`: version 1 has more than 107 bytes, or version 2 more than 4,096.
   * - `'proxy-checksum'`: its CRC32C checksum is wrong.
   * - `'proxy-cut-short'`: the connection ended before the header was complete.
   * - `'proxy-timeout'`: the header was not complete within `proxyProtocol.timeout`.
   * - `'proxy-evicted'`: more than 4,096 connections were held, and this was the oldest; its header was not complete.
   */
  export type ProxyFaultReason =
    | 'proxy-missing'
    | 'proxy-malformed'
    | 'proxy-too-long'
    | 'proxy-checksum'
    | 'proxy-cut-short'
    | 'proxy-timeout'
    | 'proxy-evicted'

  /**
   * The contents of a PROXY header besides the client's address (HAProxy's proxy-protocol.txt). Frozen, and safe to
   * serialize as JSON: bytes are hexadecimal text. Fields that the header does not contain are absent. Of two TLVs of
   * one type the first counts.
   */
  export interface ProxyProtocol {
    /** 1: text; 2: binary. */
    readonly version: 1 | 2
    /**
     * `true`: the header names no client (LOCAL, UNKNOWN, UNSPEC or a Unix-domain socket), as in health checks of
     * balancers. The answer is the sender's own address.
     */
    readonly local: boolean
    /** The address that the client connected to; absent if `local` is `true`. */
    readonly destination?: {
      /** RFC 5952 text; IPv4-mapped IPv6 is written as IPv4. */
      readonly address: string
      /** The TCP port, 1 to 65535; `undefined` if the header contains 0. */
      readonly port: number | undefined
    }
    /** The application protocol that the client negotiated with the sender by ALPN, e.g. `'h2'`. */
    readonly alpn?: string
    /** The host name that the client requested; over TLS the SNI. */
    readonly authority?: string
    /** The sender's identifier of the connection, an opaque sequence of bytes, as hexadecimal text. */
    readonly uniqueId?: string
    /** The name of the sender's network namespace. */
    readonly netns?: string
    /** The TLS connection between the client and the sender. */
    readonly ssl?: ProxySsl
    /** AWS: the identifier of the VPC endpoint that the client used. */
    readonly awsVpceId?: string
    /** Alibaba Cloud PrivateLink: the identifier of the client's VPC. */
    readonly alibabaVpcId?: string
    /** Alibaba Cloud PrivateLink: the identifier of the endpoint that the client used. */
    readonly alibabaEndpointId?: string
    /** Alibaba Cloud PrivateLink: the identifier of the endpoint service. */
    readonly alibabaEndpointServiceId?: string
    /** Azure Private Link: the link identifier of the private endpoint, 0 to 4294967295. */
    readonly azureLinkId?: number
    /** Google Cloud Private Service Connect: the connection's identifier, 64 bits, as decimal text. */
    readonly gcpPscConnectionId?: string
    /** TLVs without a property above, or with an invalid value (e.g. text that is not UTF-8), in order. */
    readonly tlvs: ReadonlyArray<ProxyTlv>
  }

  /** The TLS connection between a client and the sender of a PROXY header. */
  export interface ProxySsl {
    /** Bits: 1, the client connected over TLS; 2, it gave a certificate on this connection; 4, in this TLS session. */
    readonly client: number
    /**
     * Whether the client gave a certificate and the sender verified it. `false` if there was no certificate, for
     * which senders also report "no error".
     */
    readonly verified: boolean
    /** E.g. `'TLSv1.3'`. */
    readonly version?: string
    /** Common Name of the client certificate's subject. Check `verified` first. */
    readonly commonName?: string
    /** E.g. `'TLS_AES_256_GCM_SHA384'`. */
    readonly cipher?: string
    /** The signature algorithm of the sender's own certificate, e.g. `'RSA-SHA256'`. */
    readonly signatureAlgorithm?: string
    /** The key of the sender's own certificate, e.g. `'RSA2048'`. */
    readonly keyAlgorithm?: string
    /** The group of the key exchange, e.g. `'X25519'`. */
    readonly group?: string
    /** The scheme with which the sender signed the TLS handshake. */
    readonly signatureScheme?: string
    /** The client certificate, DER, as hexadecimal text. Check `verified` first. */
    readonly certificate?: string
    /** Nested TLVs without a property above, or with an invalid value, in order. */
    readonly tlvs: ReadonlyArray<ProxyTlv>
  }

  /** A type-length-value field of a PROXY header of version 2. */
  export interface ProxyTlv {
    /** 0 to 255. */
    readonly type: number
    /** Hexadecimal text. */
    readonly value: string
  }

  /** Options of `encodeProxyHeader()`. */
  export interface EncodeProxyHeaderOptions {
    /**
     * 1: text; 2: binary.
     * @default 2
     */
    version?: 1 | 2
    /**
     * The client. Without `source` and `destination` the header is LOCAL, in version 1 UNKNOWN, and names no client.
     */
    source?: ProxyEndpoint
    /** The address that the client connected to, of the same family as `source`. */
    destination?: ProxyEndpoint
    /** Version 2 only. A value is bytes or hexadecimal text; pass other text as `Buffer.from(text)`. */
    tlvs?: ReadonlyArray<{ readonly type: number, readonly value: Uint8Array | string }>
    /**
     * Version 2 only. `true`: adds a CRC32C checksum.
     * @default false
     */
    checksum?: boolean
  }

  /** An end of a connection, as `encodeProxyHeader()` writes it. */
  export interface ProxyEndpoint {
    /** An IP address without zone; IPv4-mapped IPv6 is written as IPv4. */
    readonly address: string
    /** The TCP port, 0 to 65535. */
    readonly port: number
  }

  /**
   * Encodes a PROXY protocol header (proxy-protocol.txt) of at most 4,096 bytes, for tests of a server, or to pass the
   * client on to an upstream. Write it to a new connection before anything else, including TLS. Do not use pooled
   * connections: everything on a connection belongs to the client that its header names.
   *
   * Throws `FST_REAL_IP_INVALID_OPTION` for invalid options, and for a header of more than 4,096 bytes.
   */
  export function encodeProxyHeader (options?: EncodeProxyHeaderOptions): Buffer

  /** An exact format of TOA, and its position on the SYN. */
  export interface ToaFormat {
    /** The option's kind, 2 to 254. */
    readonly kind: number
    /** The option's size in bytes, both header bytes included: 8 to 40 for IPv4, 20 to 40 for IPv6. */
    readonly length: number
    /** The address family, as `node:net` names it. */
    readonly family: 'IPv4' | 'IPv6'
    /** `'first'`: before all other options; `'last'`: after them. */
    readonly position: 'first' | 'last'
  }

  /** The source address and port of a connection's packets. */
  export interface TransportPeer {
    /** RFC 5952 text; as on the wire: an IPv4-mapped IPv6 address stays IPv6. */
    readonly address: string
    /** The TCP port, 1 to 65535; `undefined` if only the address is known, e.g. with `inject()`. */
    readonly port: number | undefined
  }

  /** A Fastify request of any server: HTTP/1 or HTTP/2, with any routes, schemas and loggers. */
  export type AnyRequest = FastifyRequest<any, any, any, any, any, any, any, any>

  /** Arguments of `lookup()`. */
  export type Connection = Duplex | Http2Session | Http2Stream | IncomingMessage | Http2ServerRequest | AnyRequest

  /** The API of `app.realIp`. */
  export interface RealIp {
    /**
     * The address of the client behind a net or TLS socket, an HTTP/2 session or stream, a raw or a Fastify request.
     * For code without a Fastify request: `'upgrade'` and `clientError` handlers, `genReqId`, child loggers.
     * Never throws; for any other value the answer's source is `'none'`.
     */
    lookup (connection: Connection): RealAddress
    /**
     * Replaces the list at once, also for open connections: a request keeps its answer, the next request of its
     * connection gets a new one. Throws `FST_REAL_IP_INVALID_OPTION` for an invalid list, and if the plugin was
     * registered without `trustedPeers`; then nothing changes.
     */
    setTrustedPeers (trustedPeers: TrustedPeers): void
    /**
     * Replaces the list of HTTP proxies at once; a request keeps its answer. Throws `FST_REAL_IP_INVALID_OPTION` for
     * an invalid list, and if the plugin was registered without `forwarded`; then nothing changes.
     */
    setForwardedTrust (trust: ReadonlyArray<string>): void
    /** The current connection counters of this server. Never throws. */
    stats (): Stats
  }

  /**
   * Counters of the connections that a server accepted since the plugin was registered, without requests of `inject()`.
   * They only grow, and contain no addresses.
   *
   * Each connection is counted once, by the decision made when it was accepted, or when its transport peer was found.
   * Later changes by `setTrustedPeers()` or a forwarding header are not counted.
   */
  export interface Stats {
    /** All connections with a decision. */
    readonly connections: number
    /** Of these, those that were reset at once: by a `'reject'` setting, or because `admit` did not return `true`. */
    readonly rejected: number
    /** By `source`. */
    readonly source: Readonly<Record<Exclude<Source, 'forwarded'>, number>>
    /** By `trust`. */
    readonly trust: Readonly<Record<RealAddress['trust'], number>>
    /** By `reason`; connections without a reason are not included. */
    readonly reason: Readonly<Record<
      Exclude<Reason, 'forwarded-malformed' | 'forwarded-missing' | 'unobserved' | 'injected'>, number
    >>
  }

  /**
   * The message of the `diagnostics_channel` `'fastify-real-ip:connection'`, published for each connection of a server
   * of this process when `Stats` counts it. Subscribers run before TLS and HTTP read from the connection.
   */
  export interface ConnectionMessage {
    /**
     * The accepted socket, below TLS and HTTP/2; if it was rejected, it is destroyed already, or in the next tick if
     * another process handed it over.
     */
    readonly socket: Duplex
    /** The connection's own answer, without forwarding headers, which belong to requests. */
    readonly realAddress: RealAddress
  }

  /**
   * The peers to believe: addresses, CIDR ranges and the presets `'loopback'`, `'linklocal'`, `'uniquelocal'`; `'any'`;
   * or a synchronous predicate, which trusts a peer by returning exactly `true`: a promise or an exception is logged
   * and counts as false. `[]` trusts nobody. IPv4 and IPv6 never mix.
   */
  export type TrustedPeers = ReadonlyArray<string> | 'any' | ((peer: TransportPeer) => boolean)

  /** Options of `register()`. */
  export interface FastifyRealIpOptions {
    /**
     * Kernel sources, tried in the order given on each new connection. `'auto'` uses those that this machine and the
     * other options allow, and logs in one line which they are and why it omits the others. It uses `'saved-syn'` only
     * with `toa`, and never `'proxy-protocol'`.
     * @default ['vtoa', 'getpeername']
     */
    sources?: ReadonlyArray<KernelSource | 'proxy-protocol'> | 'auto'
    /**
     * The TOA that the balancer writes on the SYN: a preset for a family of balancers, or formats. Requires a list of
     * `trustedPeers`. If a kernel module is asked too, a SYN that contradicts it is `'ambiguous'`.
     */
    toa?: 'alibaba' | 'ucloud' | 'tencent' | 'dpvs' | ReadonlyArray<ToaFormat>
    /**
     * `true`: reads each connection's virtual server from vtoa into `realAddress.virtualServer`.
     * @default false
     */
    virtualServer?: boolean
    /**
     * `true`: registering fails with `FST_REAL_IP_NATIVE_UNAVAILABLE` if none of `sources` can work.
     * @default false
     */
    require?: boolean
    /**
     * The balancers whose claims are believed, checked against the true sender of each connection's packets. List
     * only hosts that overwrite or strip clients' TOA, and connect to this server only to forward. By default every
     * claim is believed and `trust` is `'unchecked'`. `undefined` and `null` are errors.
     */
    trustedPeers?: TrustedPeers
    /**
     * A claim from a peer that is not in `trustedPeers`: `'ignore'` it, or `'reject'` (reset) the connection. With the
     * source `'proxy-protocol'` that means every connection of such a peer: its bytes, which may claim a client, are
     * not read.
     * @default 'ignore'
     */
    untrusted?: 'ignore' | 'reject'
    /**
     * A connection without a claim, from a peer in the list or one for which the function returned `true`. Does not
     * apply to `'any'`.
     * @default 'ignore'
     */
    missing?: 'ignore' | 'reject'
    /**
     * A claim of a trusted peer with an address that no client can have, or two claims that differ.
     * @default 'reject'
     */
    invalid?: 'ignore' | 'reject'
    /**
     * A connection whose transport peer is unknown; `'believe'` uses the source's address with `trust: 'unverified'`.
     * `'believe'` is an error with the source `'proxy-protocol'`.
     * @default 'ignore'
     */
    unverified?: 'ignore' | 'reject' | 'believe'
    /** With `'proxy-protocol'` in `sources`: which peers send PROXY headers, and the timeout. */
    proxyProtocol?: ProxyProtocolOptions
    /** HTTP proxies in front of the balancer, and the header that they write. */
    forwarded?: ForwardedOptions
    /**
     * `true`: `request.ip`, `request.ips`, and behind a trusted HTTP proxy `request.protocol` and `request.host` (from
     * which Fastify makes `hostname` and `port`) come from this plugin, for other plugins that use them. `request.ip`
     * is `undefined` if the address is unknown. Cannot be combined with `trustProxy`.
     * @default false
     */
    overrideRequest?: boolean
    /**
     * Called once per connection, before TLS and HTTP, and again if `setTrustedPeers()` changes its answer. Anything
     * but exactly `true` resets the connection. Must be synchronous: a promise or an exception is logged and counts as
     * false.
     */
    admit?: (address: RealAddress) => boolean
    /**
     * `true`: every line of `request.log` and `reply.log` contains the client's address, as `realIp` or as named by
     * `LogNames`. Child logger factories still apply. Declare routes after the plugin is loaded
     * (`await app.register(…)`): older routes omit the address from the line "incoming request".
     * @default false
     */
    bindLogger?: boolean | WithRealIpOptions
  }

  /**
   * Field names in log lines:
   * - `'plain'`: `realIp`, `realPort`, `source`, `trust`, `reason`, `transportPeer`;
   * - `'opentelemetry'`: `client.address`, `client.port`, `network.peer.address` and `network.peer.port`, as in
   *   OpenTelemetry's semantic conventions, and `real_ip.source`, `real_ip.trust`, `real_ip.reason`, which are not in
   *   the conventions.
   */
  export type LogNames = 'plain' | 'opentelemetry'

  /** How many leading bits of an address log lines keep; the others are 0. */
  export interface LogMask {
    /**
     * Bits of an IPv4 address to keep, 0 to 32.
     * @default 24
     */
    ipv4?: number
    /**
     * Bits of an IPv6 address to keep, 0 to 128.
     * @default 48
     */
    ipv6?: number
  }

  /** Options of `withRealIp()`. */
  export interface WithRealIpOptions {
    /**
     * Field names.
     * @default 'plain'
     */
    names?: LogNames
    /**
     * Masks the client's address in log lines and omits its port: `{ ipv4: 24, ipv6: 48 }`. Also masks the transport
     * peer, unless `trust` is `'trusted'` and its address differs from the client's. Only log lines are masked:
     * `request.realIp`, `realIpKey()` and `admit` get the whole address.
     */
    mask?: LogMask
  }

  /**
   * Creates a request serializer for pino, which adds the client's address and its provenance to the result of the
   * given serializer; by default to Fastify's own fields, instead of `remoteAddress` and `remotePort`:
   *
   *     Fastify({ logger: { serializers: { req: withRealIp() } } })
   *
   * Omits unknown fields. Adds nothing if the given serializer does not return an object, or if the value is not a
   * request of a server with the plugin. Throws `FST_REAL_IP_INVALID_OPTION` for unknown options.
   *
   * Passed to pino without being called (`req: withRealIp`), it serializes like `withRealIp()`, and warns once
   * (`FST_REAL_IP_NOT_CALLED`).
   */
  export function withRealIp (options?: WithRealIpOptions): (request: any) => { [field: string]: unknown }
  export function withRealIp<Request = FastifyRequest<RouteGenericInterface, RawServerBase>> (
    serializer: ((request: Request) => any) | undefined, options?: WithRealIpOptions
  ): (request: Request) => { [field: string]: unknown }

  /** Options of `realIpKey()`. */
  export interface RealIpKeyOptions {
    /**
     * The prefix length of an IPv6 client in bits, 1 to 128: all addresses in the prefix share one key.
     * @default 64
     */
    ipv6Subnet?: number
  }

  /**
   * Creates a `keyGenerator` for `@fastify/rate-limit`:
   *
   *     app.register(rateLimit, { max: 100, keyGenerator: realIpKey() })
   *
   * The key of a client is its address, as `@fastify/rate-limit` writes it: IPv4 unchanged, IPv6 as the first address
   * of its subnet. Clients behind the address of a balancer or a proxy share a key that is not an address: the reason
   * (`'no-toa'`, `'proxy-local'`, `'implausible'`, `'ambiguous'`, `'forwarded-malformed'`, `'forwarded-missing'`), a
   * colon, and that address. Requests without a known address share `'unknown:'` and the reason.
   *
   * Throws `FST_REAL_IP_INVALID_OPTION` for unknown options. The generator never throws. Passed to a limiter without
   * being called (`keyGenerator: realIpKey`), it makes the keys of `realIpKey()`, and warns once
   * (`FST_REAL_IP_NOT_CALLED`).
   */
  export function realIpKey (options?: RealIpKeyOptions): (request: AnyRequest) => string

  /**
   * Creates an allow list, for requests or as `admit`:
   *
   *     const isStaff = realIpIn(['192.0.2.0/24', '2001:db8::/32'])
   *     app.get('/admin', (request, reply) => isStaff(request) ? 'hello' : reply.code(403).send('no'))
   *
   * The list is written like `trustedPeers` and compiled once; IPv4 and IPv6 never mix. Returns false for an
   * address that many clients share (the reasons in keys of `realIpKey()`), if `trust` is `'unverified'` or
   * `'unchecked'`, if the address is unknown, and for values that are neither a request nor a `RealAddress`.
   *
   * Throws `FST_REAL_IP_INVALID_OPTION` for an invalid list. The returned function never throws.
   */
  export function realIpIn (list: ReadonlyArray<string>): (asked: AnyRequest | RealAddress) => boolean

  /** The peers whose connections must begin with a PROXY header. */
  export interface ProxyProtocolOptions {
    /**
     * The trusted peers that send a header, as a list like `trustedPeers`; `'unix'` stands for clients of a Unix-domain
     * socket. Other trusted peers send none. By default every trusted peer sends one.
     */
    from?: ReadonlyArray<string>
    /**
     * Timeout for the whole header in milliseconds, 1 to 60000.
     * @default 5000
     */
    timeout?: number
  }

  /** HTTP proxies in front of the balancer. */
  export interface ForwardedOptions {
    /**
     * The proxies whose header entries are believed, as a list like `trustedPeers`; `'unix'` stands for clients of a
     * Unix-domain socket.
     */
    trust: ReadonlyArray<string>
    /**
     * `'x-forwarded-for'` and `'forwarded'` (RFC 7239) are lists, read from the right while the current address is in
     * `trust`. Any other name is a header with a single address: a second line or a list is `'forwarded-malformed'`. In
     * `cloudfront-viewer-address` a port follows the last colon.
     * @default 'x-forwarded-for'
     */
    header?: ForwardedHeader
  }

  /** Headers that are known to contain the client's address; any other name is valid too. */
  export type ForwardedHeader =
    | 'x-forwarded-for'
    | 'forwarded'
    | 'cf-connecting-ip'
    | 'true-client-ip'
    | 'fastly-client-ip'
    | 'fly-client-ip'
    | 'x-real-ip'
    | 'x-azure-clientip'
    | 'cloudfront-viewer-address'
    | (string & {})

  /** The plugin, by name. */
  export const fastifyRealIp: FastifyRealIp
  export { fastifyRealIp as default }
}

/**
 * Adds `request.realIp`, `request.realAddress` and `app.realIp`: the client's address behind a load balancer, a CDN or
 * a proxy. Each connection is read once.
 *
 * Registering fails with `FST_REAL_IP_INVALID_OPTION` for invalid options, `FST_REAL_IP_ALREADY_REGISTERED` if the
 * server has the plugin with other options, `FST_REAL_IP_NO_TRANSPORT_PEER` if `trustedPeers` cannot be checked,
 * `FST_REAL_IP_NAME_TAKEN` if a decorator's name is taken, and with `require: true` `FST_REAL_IP_NATIVE_UNAVAILABLE`.
 */
declare function fastifyRealIp (...params: Parameters<FastifyRealIp>): ReturnType<FastifyRealIp>
export = fastifyRealIp
