/// <reference types="node" />

import type { FastifyPluginCallback, FastifyRequest, RawServerBase, RouteGenericInterface } from 'fastify'
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
   *   (Alibaba Cloud Linux 3, kernel 5.10.134-17 or later), or by `fastify-real-ip attach` (Linux 5.10 or later).
   *   Nothing in `realAddress` tells which: the system call is the same.
   * - `'getpeername'`: `getpeername(2)`, which the `vtoa` module (kernel 5.10.134-15 or later) and other
   *   TOA modules rewrite. Without such a module it gives the transport peer: the answer alone does not tell which.
   * - `'nat64'`: `getsockopt(fd, IPPROTO_IP, 4096)`, answered by DPVS's toa module for IPv6 clients of an IPv4 server.
   * - `'saved-syn'`: TOA on the connection's SYN, which Linux 4.3 and later keep (tcp(7) `TCP_SAVED_SYN`); no module.
   *   For balancers that write it on the SYN: needs `toa` and a list of `trustedPeers`.
   */
  export type KernelSource = 'vtoa' | 'nat64' | 'getpeername' | 'saved-syn'

  /**
   * Where an address was learned:
   * - a kernel source;
   * - `'proxy-protocol'`: the PROXY header at the start of the connection;
   * - `'transport-peer'`: who really sent the packets, from the saved SYN (tcp(7) `TCP_SAVED_SYN`) or sock_diag(7);
   * - `'forwarded'`: a forwarding header that `forwarded` lets count;
   * - `'peer'`: the remote address that Node.js reports for the socket (the last resort, on any platform);
   * - `'none'`: no address is known.
   */
  export type Source = KernelSource | 'proxy-protocol' | 'transport-peer' | 'forwarded' | 'peer' | 'none'

  /**
   * Why this is the answer. Where a policy was given with `trustedPeers`:
   * - `'no-toa'`: a trusted peer claims no client; its own address stands.
   * - `'untrusted-peer'`: a peer that is not in the list claims a client; its own address stands.
   * - `'unverified-peer'`: who sent the packets is not known.
   * - `'implausible'`: the claim is an address that no client can have (`0.0.0.0/8`, loopback, multicast, …).
   * - `'ambiguous'`: two TOAs on the SYN differ, or the SYN and a kernel module do.
   * - `'proxy-local'`: a PROXY header names no client (a health check of the balancer); the peer's own address stands.
   * - `'forwarded-malformed'`: the forwarding header's next hop is no address, or one that no client can have; the last
   *   good one stands.
   * - `'forwarded-missing'`: a proxy in `forwarded.trust` named nobody: it sent no header, or no hop before its own. Its
   *   address stands, which all of its clients share.
   *
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

  /** What one source said when it had no address. */
  export interface Attempt {
    /** Which source it was. */
    readonly source: KernelSource
    /**
     * The name of the system call's errno (`'ENOPROTOOPT'`: no module; `'ESRCH'`, with `'nat64'` `'EINVAL'`: no TOA on
     * this connection; with `'nat64'` `'EFAULT'`: TOA, but not of NAT64), or
     * - `'bad-family'`: the call succeeded with a `sa_family` that is neither `AF_INET` nor `AF_INET6`;
     * - `'transport-peer'`: it gave the transport peer, and so claims no client;
     * - of `'saved-syn'`: `'no-saved-syn'` (SYN cookies, or a connection from before the server listened with this
     *   plugin), `'no-option'`, `'out-of-place'`, `'no-room'`, `'syn-payload'`, `'ambiguous'`: what is wrong with its TOA.
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
    /** Why this is the answer; absent when a kernel source gave it and nothing speaks against it. */
    readonly reason?: Reason
    /**
     * - `'trusted'`: the transport peer is in `trustedPeers`, or `'any'` was said; with `source: 'forwarded'`, proxies in
     *   `forwarded.trust` wrote it.
     * - `'untrusted'`: the transport peer is known and not in `trustedPeers`; what it claims was not believed.
     * - `'unverified'`: `trustedPeers` is set, and who sent the packets is not known.
     * - `'unchecked'`: `trustedPeers` is not set: whoever reaches the port can have forged the address.
     */
    readonly trust: 'trusted' | 'untrusted' | 'unverified' | 'unchecked'
    /** Who really sent the packets; `undefined` where it is not known, or nobody asked with `trustedPeers`. */
    readonly transportPeer: TransportPeer | undefined
    /**
     * With `virtualServer: true`: the virtual server that the client connected to, where vtoa knows it, and what the
     * connection's TOA says is believed.
     */
    readonly virtualServer?: VirtualServer
    /** What the connection's PROXY header says beside the client's address, where the header is believed. */
    readonly proxyProtocol?: ProxyProtocol
    /** With `source: 'forwarded'`: the address of the connection that the header came on. */
    readonly via?: RealAddress
    /** The sources that were asked before this answer, in order, and what each said. */
    readonly attempts: ReadonlyArray<Attempt>
  }

  /** A balancer's virtual server, as vtoa's optnames 1345 and 1347 give it. */
  export interface VirtualServer {
    /** The id of the VPC, or `undefined` where the connection came through none. */
    readonly vpcId: number | undefined
    /** RFC 5952 text. */
    readonly address: string
    /** The address family, as `node:net` names it. */
    readonly family: 'IPv4' | 'IPv6'
    /** The TCP port; `undefined` where it is not known. */
    readonly port: number | undefined
  }

  /**
   * What can be wrong with the PROXY header of a connection that must begin with one:
   * - `'proxy-missing'`: the first bytes are no PROXY header at all.
   * - `'proxy-malformed'`: a PROXY header that breaks its format (proxy-protocol.txt).
   * - `'proxy-too-long'`: version 1 has more than 107 bytes, or version 2 more than 4,096.
   * - `'proxy-checksum'`: its CRC32C checksum is wrong.
   * - `'proxy-cut-short'`: the connection ended within the header, or before it.
   * - `'proxy-timeout'`: the header was not complete in time.
   */
  export type ProxyFaultReason =
    | 'proxy-missing'
    | 'proxy-malformed'
    | 'proxy-too-long'
    | 'proxy-checksum'
    | 'proxy-cut-short'
    | 'proxy-timeout'

  /**
   * What a connection's PROXY header says beside the client's address, as HAProxy's proxy-protocol.txt defines it. Frozen;
   * has strings, numbers, booleans and hexadecimal text only, so that it can be sent as JSON. What the header does not
   * have is absent. If a type of TLV is there twice, the first counts.
   */
  export interface ProxyProtocol {
    /** 1: text; 2: binary. */
    readonly version: 1 | 2
    /**
     * `true`: the header names no client (LOCAL, UNKNOWN, UNSPEC or a Unix-domain socket), as the health checks of
     * balancers do. The sender's own address stands.
     */
    readonly local: boolean
    /** What the client connected to; absent where `local` is `true`. */
    readonly destination?: {
      /** RFC 5952 text; an IPv4-mapped IPv6 address is given as IPv4. */
      readonly address: string
      /** The TCP port, 1 to 65535; `undefined` where the header has 0. */
      readonly port: number | undefined
    }
    /** The application protocol that the client negotiated with the sender by ALPN, as `'h2'`. */
    readonly alpn?: string
    /** The host name that the client asked for: over TLS its SNI. */
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
    /** The TLVs that have no property above, or whose value does not fit it (text that is not valid UTF-8), in order. */
    readonly tlvs: ReadonlyArray<ProxyTlv>
  }

  /** The TLS connection of a client with the sender of a PROXY header. */
  export interface ProxySsl {
    /** Bits: 1, the client connected over TLS; 2, it gave a certificate on this connection; 4, in this TLS session. */
    readonly client: number
    /**
     * Whether the client gave a certificate and the sender verified it. Senders also report "no error" where there was
     * no certificate; that is `false` here.
     */
    readonly verified: boolean
    /** As `'TLSv1.3'`. */
    readonly version?: string
    /** Common Name of the client certificate's subject. Check `verified` first. */
    readonly commonName?: string
    /** As `'TLS_AES_256_GCM_SHA384'`. */
    readonly cipher?: string
    /** What the sender's own certificate was signed with, as `'RSA-SHA256'`. */
    readonly signatureAlgorithm?: string
    /** The key of the sender's own certificate, as `'RSA2048'`. */
    readonly keyAlgorithm?: string
    /** The group of the key exchange, as `'X25519'`. */
    readonly group?: string
    /** What the sender signed the TLS handshake with. */
    readonly signatureScheme?: string
    /** The client certificate, DER, as hexadecimal text. Check `verified` first. */
    readonly certificate?: string
    /** The nested TLVs that have no property above, or whose value does not fit it, in order. */
    readonly tlvs: ReadonlyArray<ProxyTlv>
  }

  /** A type-length-value field of a PROXY header of version 2. */
  export interface ProxyTlv {
    /** 0 to 255. */
    readonly type: number
    /** Hexadecimal text. */
    readonly value: string
  }

  /** What `encodeProxyHeader()` takes. */
  export interface EncodeProxyHeaderOptions {
    /**
     * 1: text; 2: binary.
     * @default 2
     */
    version?: 1 | 2
    /** The client. With neither `source` nor `destination` the header names none: LOCAL, in version 1 UNKNOWN. */
    source?: ProxyEndpoint
    /** What the client connected to, of the same family as `source`. */
    destination?: ProxyEndpoint
    /** Version 2 only. The value is given as bytes or as hexadecimal text; text is given as `Buffer.from(text)`. */
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
   * Encodes a header of the PROXY protocol (proxy-protocol.txt), of at most 4,096 bytes: for tests of one's own server, or
   * to pass the client on to an upstream. Write it to a new connection before anything else, TLS included, and never to
   * one of a pool: what follows on a connection belongs to the client that its header names.
   *
   * Throws `FST_REAL_IP_INVALID_OPTION`.
   */
  export function encodeProxyHeader (options?: EncodeProxyHeaderOptions): Buffer

  /** One exact format of TOA, and where on a SYN the balancer writes it. */
  export interface ToaFormat {
    /** The option's number, 2 to 254. */
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
    /** RFC 5952 text; from the wire, so that an IPv4-mapped IPv6 address stays IPv6. */
    readonly address: string
    /** The TCP port; `undefined` where only the address is known, as with `inject()`. */
    readonly port: number | undefined
  }

  /** A Fastify request of any server: HTTP/1 or HTTP/2, whatever its routes, schemas and loggers are. */
  export type AnyRequest = FastifyRequest<any, any, any, any, any, any, any, any>

  /** What `lookup` takes. */
  export type Connection = Duplex | Http2Session | Http2Stream | IncomingMessage | Http2ServerRequest | AnyRequest

  /** What `app.realIp` offers. */
  export interface RealIp {
    /**
     * The address of the client behind a net or TLS socket, an HTTP/2 session or stream, a raw or a Fastify request.
     * For places without a Fastify request: `'upgrade'` and `clientError` handlers, `genReqId`, child loggers.
     * Never throws; for anything else the answer has source `'none'`.
     */
    lookup (connection: Connection): RealAddress
    /**
     * Swaps the list at once, for live connections too: a request keeps the answer it began with, the next one of its
     * connection has the new. Throws `FST_REAL_IP_INVALID_OPTION` for what `trustedPeers` would not take, and where
     * the plugin was registered without `trustedPeers`; then nothing has changed.
     */
    setTrustedPeers (trustedPeers: TrustedPeers): void
    /**
     * Swaps the list of HTTP proxies at once: a request keeps the answer that it has. Throws
     * `FST_REAL_IP_INVALID_OPTION` for what `forwarded.trust` would not take, and where the plugin was registered without
     * `forwarded`; then nothing has changed.
     */
    setForwardedTrust (trust: ReadonlyArray<string>): void
    /** The numbers of this server's connections, as they are now. Never throws. */
    stats (): Stats
  }

  /**
   * Counts of the connections that a server has accepted since the plugin was registered; requests of `inject()` are none.
   * They only grow, and nothing is kept of a single address.
   *
   * Each connection is counted once, by what was decided when it was made; where its transport peer had to be looked for,
   * when that was found. What `setTrustedPeers()` or a forwarding header change later is not counted again.
   */
  export interface Stats {
    /** All connections that were decided about. */
    readonly connections: number
    /** Of these, how many were reset at once: a setting is `'reject'`, or `admit` did not return `true`. */
    readonly rejected: number
    /** By where the address was learned. */
    readonly source: Readonly<Record<Exclude<Source, 'forwarded'>, number>>
    /** By `trust`. */
    readonly trust: Readonly<Record<RealAddress['trust'], number>>
    /** A connection without a reason is in none of these. */
    readonly reason: Readonly<Record<Exclude<Reason, 'forwarded-malformed' | 'forwarded-missing' | 'unobserved' | 'injected'>, number>>
  }

  /**
   * What `diagnostics_channel` `'fastify-real-ip:connection'` publishes of each connection that a server of this process
   * accepts, at the moment when `Stats` counts it. Subscribers run before anything is read from the connection.
   */
  export interface ConnectionMessage {
    /** The accepted socket, below TLS and HTTP/2; already destroyed where the connection was rejected. */
    readonly socket: Duplex
    /** The connection's own answer: forwarding headers belong to requests. */
    readonly realAddress: RealAddress
  }

  /**
   * Whom to believe: addresses, CIDR ranges and the presets `'loopback'`, `'linklocal'`, `'uniquelocal'`; `'any'`; or a
   * synchronous predicate of which only exact `true` trusts. `[]` trusts nobody. IPv4 and IPv6 never mix.
   */
  export type TrustedPeers = ReadonlyArray<string> | 'any' | ((peer: TransportPeer) => boolean)

  /** What `register()` takes; each option that is left out has its default. */
  export interface FastifyRealIpOptions {
    /**
     * Kernel sources, tried in this order on each new connection. `'auto'` takes those that this machine and the other
     * options allow, and says in one log line which they are and why the others are not; never one that needs a decision
     * about trust that was not made.
     * @default ['vtoa', 'getpeername']
     */
    sources?: ReadonlyArray<KernelSource | 'proxy-protocol'> | 'auto'
    /**
     * The TOA that the balancer writes on the SYN: the formats of a family of balancers, or one's own. Needs a list of
     * `trustedPeers`. With a kernel module's source beside it, a SYN and a module that disagree are `'ambiguous'`.
     */
    toa?: 'alibaba' | 'ucloud' | 'tencent' | 'dpvs' | ReadonlyArray<ToaFormat>
    /**
     * `true`: reads the virtual server of each connection from vtoa, as `realAddress.virtualServer`.
     * @default false
     */
    virtualServer?: boolean
    /**
     * `true`: registering fails with `FST_REAL_IP_NATIVE_UNAVAILABLE` where none of `sources` can work.
     * @default false
     */
    require?: boolean
    /**
     * The balancers whose claims are believed, checked against the true sender of each connection's packets. A list
     * means: these hosts overwrite or strip foreign TOA, and reach this server only by forwarding. Left out, every
     * claim is believed and `trust` is `'unchecked'`. `undefined` and `null` are errors.
     */
    trustedPeers?: TrustedPeers
    /**
     * A claim from a peer that is not in `trustedPeers`: `'ignore'` it, or `'reject'` (reset) the connection.
     * @default 'ignore'
     */
    untrusted?: 'ignore' | 'reject'
    /**
     * A connection from a trusted peer without a claim.
     * @default 'ignore'
     */
    missing?: 'ignore' | 'reject'
    /**
     * A claim of a trusted peer that no client can have.
     * @default 'reject'
     */
    invalid?: 'ignore' | 'reject'
    /**
     * A connection whose transport peer is not known; `'believe'` takes what the source says, as `trust: 'unverified'`.
     * @default 'ignore'
     */
    unverified?: 'ignore' | 'reject' | 'believe'
    /** With `'proxy-protocol'` among `sources`: who sends PROXY headers, and how long they may take. */
    proxyProtocol?: ProxyProtocolOptions
    /** Proxies that speak HTTP in front of the balancer, and the header they write. Needs `trustedPeers`. */
    forwarded?: ForwardedOptions
    /**
     * `true`: `request.ip`, `request.ips`, and behind a trusted HTTP proxy `request.protocol` and `request.host` (from which
     * Fastify makes `hostname` and `port`) come from this plugin, for other plugins that use them. `request.ip` is
     * `undefined` where no address is known. An error beside `trustProxy`.
     * @default false
     */
    overrideRequest?: boolean
    /**
     * Asked once per connection, before any TLS or HTTP work, and again when its address changes with
     * `setTrustedPeers()`. Anything but exact `true` resets the connection.
     */
    admit?: (address: RealAddress) => boolean
    /**
     * `true`: every line of `request.log` and `reply.log` has the client's address, as `realIp` or by another of
     * `LogNames`. Child logger factories are kept. Declare routes after the plugin is loaded (`await app.register(…)`):
     * for those that are older, the line "incoming request" goes without.
     * @default false
     */
    bindLogger?: boolean | WithRealIpOptions
  }

  /**
   * What fields of log lines are called:
   * - `'plain'`: `realIp`, `realPort`, `source`, `trust`, `reason`, `transportPeer`;
   * - `'opentelemetry'`: `client.address`, `client.port`, `network.peer.address` and `network.peer.port`, as
   *   OpenTelemetry's semantic conventions name them, and `real_ip.source`, `real_ip.trust`, `real_ip.reason`, for which
   *   they have no name.
   */
  export type LogNames = 'plain' | 'opentelemetry'

  /** How many bits of an address log lines keep; the others are written as 0. */
  export interface LogMask {
    /**
     * Of 32.
     * @default 24
     */
    ipv4?: number
    /**
     * Of 128.
     * @default 48
     */
    ipv6?: number
  }

  /** What `withRealIp()` takes. */
  export interface WithRealIpOptions {
    /** @default 'plain' */
    names?: LogNames
    /**
     * Masks the client's address in log lines, and leaves its port out: `{ ipv4: 24, ipv6: 48 }`. The transport peer too,
     * where it may be a client: unless `trust` is `'trusted'` and it is another host than the address. Everything that is
     * no log line has the whole address: `request.realIp`, `realIpKey()`, `admit`.
     */
    mask?: LogMask
  }

  /**
   * A serializer of requests for pino, which adds the client's address and its provenance to what the given one returns.
   * Without one, to Fastify's own fields, in place of `remoteAddress` and `remotePort`:
   *
   *     Fastify({ logger: { serializers: { req: withRealIp() } } })
   *
   * What is not known is left out. Where the given serializer returns no object, or what is logged is no request of a
   * server with the plugin, nothing is added. Throws `FST_REAL_IP_INVALID_OPTION` for options that it does not know.
   *
   * Given to pino without being called (`req: withRealIp`), it serializes as `withRealIp()` does, and warns once
   * (`FST_REAL_IP_NOT_CALLED`).
   */
  export function withRealIp (options?: WithRealIpOptions): (request: any) => { [field: string]: unknown }
  export function withRealIp<Request = FastifyRequest<RouteGenericInterface, RawServerBase>> (
    serializer: ((request: Request) => any) | undefined, options?: WithRealIpOptions
  ): (request: Request) => { [field: string]: unknown }

  /** What `realIpKey()` takes. */
  export interface RealIpKeyOptions {
    /**
     * The length in bits, 1 to 128, of the IPv6 prefix that one client has: all of its addresses are one key.
     * @default 64
     */
    ipv6Subnet?: number
  }

  /**
   * Makes a `keyGenerator` for `@fastify/rate-limit`:
   *
   *     app.register(rateLimit, { max: 100, keyGenerator: realIpKey() })
   *
   * The key of a client is its address, written as `@fastify/rate-limit` itself writes it: IPv4 as it is, IPv6 as the
   * first address of its subnet. Clients who hide behind the address of a balancer or a proxy share a key that is no
   * address: the reason (`'no-toa'`, `'implausible'`, `'ambiguous'`, `'forwarded-malformed'`, `'forwarded-missing'`), a
   * colon, and the address that they share. Requests without a known address share `'unknown:'` and the reason.
   *
   * Throws `FST_REAL_IP_INVALID_OPTION` for options that it does not know. The generator never throws. Given to a limiter
   * without being called (`keyGenerator: realIpKey`), it makes the keys of `realIpKey()`, and warns once
   * (`FST_REAL_IP_NOT_CALLED`).
   */
  export function realIpKey (options?: RealIpKeyOptions): (request: AnyRequest) => string

  /**
   * Makes an allow list, for requests or as `admit`:
   *
   *     const isStaff = realIpIn(['192.0.2.0/24', '2001:db8::/32'])
   *     app.get('/admin', (request, reply) => isStaff(request) ? 'hello' : reply.code(403).send('no'))
   *
   * The list is written like `trustedPeers` and compiled once; IPv4 and IPv6 never mix. Never true for an address that
   * many clients share (the reasons for which `realIpKey()` makes a key of its own), where `trust` is `'unverified'` or
   * `'unchecked'`, where no address is known, or for what is neither a request nor an answer.
   *
   * Throws `FST_REAL_IP_INVALID_OPTION` for a list that it does not understand. The function that it makes never throws.
   */
  export function realIpIn (list: ReadonlyArray<string>): (asked: AnyRequest | RealAddress) => boolean

  /** Whose connections begin with a PROXY header, which is mandatory for them. */
  export interface ProxyProtocolOptions {
    /**
     * The trusted peers that send a header, as a list like `trustedPeers`, or with `'unix'` those who connect to a
     * Unix-domain socket. Other trusted peers send none.
     * @default every trusted peer
     */
    from?: ReadonlyArray<string>
    /**
     * For the whole header, in milliseconds, 1 to 60000.
     * @default 5000
     */
    timeout?: number
  }

  /** HTTP proxies in front of the balancer. */
  export interface ForwardedOptions {
    /** The proxies whose header entries are believed, as a list like `trustedPeers`. */
    trust: ReadonlyArray<string>
    /**
     * `'x-forwarded-for'` and `'forwarded'` (RFC 7239) are lists, read from the right for as long as the address at hand is
     * in `trust`. Any other name stands for a header whose value is one address: one line, without a list, else the reason
     * is `'forwarded-malformed'`. In `cloudfront-viewer-address` a port follows the last colon.
     * @default 'x-forwarded-for'
     */
    header?: ForwardedHeader
  }

  /** Headers that are known to hold the client's address; any other name is taken too. */
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
 * Gives `request.realIp`, `request.realAddress` and `app.realIp.lookup()`: the address of the client behind a FullNAT
 * balancer, read from the kernel once per connection.
 *
 * Registering fails with `FST_REAL_IP_INVALID_OPTION` for options it does not understand, with
 * `FST_REAL_IP_ALREADY_REGISTERED` where the server has the plugin with other options, and, with `require: true`,
 * with `FST_REAL_IP_NATIVE_UNAVAILABLE`.
 */
declare function fastifyRealIp (...params: Parameters<FastifyRealIp>): ReturnType<FastifyRealIp>
export = fastifyRealIp
