import { channel } from 'node:diagnostics_channel'
import type { IncomingMessage, Server } from 'node:http'
import { connect as connectHttp2, type Http2ServerRequest, type Http2Session, type Http2Stream } from 'node:http2'
import type { Duplex } from 'node:stream'
import type { TLSSocket } from 'node:tls'
import rateLimit from '@fastify/rate-limit'
import Fastify, {
  type FastifyInstance, type FastifyPluginCallback, type FastifyRequest, type RawServerBase, type RouteGenericInterface
} from 'fastify'
import realIp, {
  encodeProxyHeader, fastifyRealIp, realIpIn, realIpKey, withRealIp,
  type AnyRequest, type Attempt, type Connection, type ConnectionMessage, type EncodeProxyHeaderOptions,
  type FastifyRealIpOptions, type ForwardedHeader, type ForwardedOptions, type KernelSource, type LogMask,
  type LogNames, type ProxyEndpoint, type ProxyFaultReason, type ProxyProtocol, type ProxySsl, type ProxyTlv,
  type RealAddress, type RealIp, type RealIpKeyOptions, type Reason, type Source, type Stats, type ToaFormat,
  type TransportPeer, type TrustedPeers, type VirtualServer, type WithRealIpOptions
} from 'fastify-real-ip'
import pino from 'pino'
import realIpRequired = require('fastify-real-ip')
import { expectAssignable, expectError, expectNever, expectNotAssignable, expectType } from 'tsd'

const app = Fastify()

// Every form of the plugin is one and the same.
expectAssignable<FastifyPluginCallback<FastifyRealIpOptions>>(realIp)
expectAssignable<FastifyPluginCallback<FastifyRealIpOptions>>(fastifyRealIp)
expectAssignable<FastifyPluginCallback<FastifyRealIpOptions>>(realIpRequired)
expectAssignable<FastifyPluginCallback<FastifyRealIpOptions>>(realIpRequired.default)
expectAssignable<FastifyPluginCallback<FastifyRealIpOptions>>(realIpRequired.fastifyRealIp)

// It registers in every way and on every kind of server.
app.register(realIp)
app.register(fastifyRealIp, {})
app.register(realIpRequired, { require: true })
app.register(import('fastify-real-ip'))
app.register(import('fastify-real-ip'), { sources: ['vtoa'] })
app.register(realIp, { sources: ['vtoa', 'getpeername'], require: false })
app.register(realIp, () => ({ require: true }))
app.register(realIp, {
  trustedPeers: ['192.0.2.0/24', 'uniquelocal'],
  untrusted: 'reject',
  missing: 'reject',
  invalid: 'ignore',
  unverified: 'believe',
  forwarded: { trust: ['198.51.100.0/24'], header: 'forwarded' },
  admit: ({ address, trust }) => trust === 'trusted' && address !== undefined
})
app.register(realIp, { trustedPeers: 'any' })
app.register(realIp, { sources: 'auto', toa: 'dpvs', virtualServer: true, bindLogger: true })
app.register(realIp, {
  sources: ['saved-syn', 'nat64'],
  toa: [{ kind: 254, length: 8, family: 'IPv4', position: 'first' }],
  bindLogger: { names: 'opentelemetry' }
})
app.register(realIp, {
  trustedPeers: (peer) => {
    expectType<TransportPeer>(peer)
    return peer.address === '192.0.2.1'
  }
})
Fastify({ https: {} }).register(realIp)
Fastify({ http2: true }).register(realIp)
Fastify({ http2: true, https: { allowHTTP1: true } }).register(realIp)
async function awaited () {
  await app.register(realIp, { sources: ['vtoa'] })
}
expectType<Promise<void>>(awaited())

// Wrong options are errors.
expectError(app.register(realIp, { source: ['vtoa'] }))
expectError(app.register(realIp, { sources: 'vtoa' }))
expectError(app.register(realIp, { sources: ['toa'] }))
expectError(app.register(realIp, { sources: ['peer'] }))
expectError(app.register(realIp, { sources: undefined }))
expectError(app.register(realIp, { require: 'yes' }))
expectError(app.register(realIp, { require: undefined }))
expectError(app.register(import('fastify-real-ip'), { sources: ['toa'] }))
expectError(app.register(realIp, { trustedPeers: undefined }))
expectError(app.register(realIp, { trustedPeers: '192.0.2.1' }))
expectError(app.register(realIp, { trustedPeers: async () => true }))
expectError(app.register(realIp, { trustedPeers: [], untrusted: 'believe' }))
expectError(app.register(realIp, { trustedPeers: [], missing: 'believe' }))
expectError(app.register(realIp, { trustedPeers: [], invalid: 'believe' }))
expectError(app.register(realIp, { trustedPeers: [], unverified: 'trust' }))
expectError(app.register(realIp, { trustedPeers: [], forwarded: { header: 'forwarded' } }))
expectError(app.register(realIp, { trustedPeers: [], forwarded: { trust: [], header: 7 } }))
expectError(app.register(realIp, { admit: async () => true }))
expectError(app.register(realIp, { sources: ['auto'] }))
expectError(app.register(realIp, { toa: 'lvs' }))
expectError(app.register(realIp, { toa: [{ kind: 254, length: 8 }] }))
expectError(app.register(realIp, { virtualServer: 'yes' }))
expectError(app.register(realIp, { bindLogger: 'plain' }))
expectError(app.register(realIp, { bindLogger: { names: 'ecs' } }))
expectAssignable<FastifyRealIpOptions>({ sources: ['vtoa'] as const })
expectNotAssignable<FastifyRealIpOptions>({ sources: ['vtoa'] as string[] })

// Requests have it in handlers and hooks, without a cast.
app.get('/', (request) => {
  expectType<string | undefined>(request.realIp)
  expectType<RealAddress>(request.realAddress)
  expectType<RealAddress>(request.server.realIp.lookup(request))
  expectError(request.realIp = '192.0.2.1')
  expectError(request.realAddress.address = '192.0.2.1')
})
app.get<{ Params: { id: string } }>('/:id', async (request) => request.realIp ?? request.params.id)
app.addHook('onRequest', async (request) => { expectType<string | undefined>(request.realIp) })
app.addHook('onResponse', (request, _reply, done) => { expectType<RealAddress>(request.realAddress); done() })
app.addHook('onRequestAbort', async (request) => { expectType<RealAddress>(request.realAddress) })
app.setErrorHandler((_error, request) => request.realIp)
app.setNotFoundHandler((request) => request.realIp)

// The list of trusted peers can be swapped.
expectType<void>(app.realIp.setTrustedPeers(['192.0.2.1']))
expectType<void>(app.realIp.setTrustedPeers('any'))
expectError(app.realIp.setTrustedPeers(undefined))
expectError(app.realIp.setTrustedPeers('192.0.2.1'))

// lookup() takes every object of a connection.
expectType<RealIp>(app.realIp)
expectError(app.realIp = {} as RealIp)
app.server.on('upgrade', (request, socket) => {
  expectType<RealAddress>(app.realIp.lookup(request))
  expectType<RealAddress>(app.realIp.lookup(socket))
})
app.server.on('connection', (socket) => expectType<RealAddress>(app.realIp.lookup(socket)))
Fastify({ clientErrorHandler: (_error, socket) => { expectType<RealAddress>(app.realIp.lookup(socket)) } })
Fastify({ genReqId: (raw) => app.realIp.lookup(raw).address ?? 'none' })
Fastify({
  childLoggerFactory: (logger, bindings, options, raw) =>
    logger.child({ ...bindings, client: app.realIp.lookup(raw).address }, options)
})
declare const overTls: TLSSocket
declare const session: Http2Session
declare const stream: Http2Stream
declare const http2Request: Http2ServerRequest
declare const duplex: Duplex
for (const connection of [overTls, session, stream, http2Request, duplex, connectHttp2('http://localhost')]) {
  expectAssignable<Connection>(connection)
}
expectError(app.realIp.lookup('192.0.2.1'))
expectError(app.realIp.lookup(undefined))
expectError(app.realIp.lookup())
declare const server: Server
expectError(app.realIp.lookup(server))

// Unions are literal: a switch over one is complete, or does not compile.
expectType<'vtoa' | 'nat64' | 'getpeername' | 'saved-syn'>({} as KernelSource)
expectType<'plain' | 'opentelemetry'>({} as LogNames)
declare const { source, reason, trust, family, port, transportPeer, virtualServer, via, attempts }: RealAddress
expectType<Source>(source)
switch (source) {
  case 'vtoa':
  case 'nat64':
  case 'getpeername':
  case 'saved-syn':
    expectType<KernelSource>(source)
    break
  case 'proxy-protocol':
  case 'transport-peer':
  case 'forwarded':
  case 'peer':
  case 'none':
    break
  default:
    expectNever(source)
}
expectType<Reason | undefined>(reason)
switch (reason) {
  case 'no-toa':
  case 'untrusted-peer':
  case 'unverified-peer':
  case 'implausible':
  case 'ambiguous':
  case 'proxy-local':
  case 'proxy-missing':
  case 'proxy-malformed':
  case 'proxy-too-long':
  case 'proxy-checksum':
  case 'proxy-cut-short':
  case 'proxy-timeout':
  case 'proxy-evicted':
  case 'forwarded-malformed':
  case 'forwarded-missing':
  case 'native-unavailable':
  case 'no-fd':
  case 'no-answer':
  case 'closed':
  case 'unobserved':
  case 'injected':
  case 'no-address':
  case undefined:
    break
  default:
    expectNever(reason)
}
expectNotAssignable<Source>('proxy')
expectNotAssignable<Reason>('timeout')
expectType<'trusted' | 'untrusted' | 'unverified' | 'unchecked'>(trust)
expectType<'IPv4' | 'IPv6' | undefined>(family)
expectType<number | undefined>(port)
expectType<TransportPeer | undefined>(transportPeer)
expectType<RealAddress | undefined>(via)
expectType<VirtualServer | undefined>(virtualServer)
expectType<'first' | 'last'>({} as ToaFormat['position'])
expectType<ReadonlyArray<string> | 'any' | ((peer: TransportPeer) => boolean)>({} as TrustedPeers)
expectType<ForwardedHeader | undefined>({} as ForwardedOptions['header'])
for (const header of [
  'x-forwarded-for', 'forwarded', 'cf-connecting-ip', 'cloudfront-viewer-address', 'x-of-my-own'
] as const) {
  expectAssignable<FastifyRealIpOptions>({ trustedPeers: [], forwarded: { trust: [], header } })
}

// What is known is read-only, and absent where it is not known.
expectType<ReadonlyArray<Attempt>>(attempts)
for (const attempt of attempts) {
  expectType<KernelSource>(attempt.source)
  expectType<string>(attempt.reason)
}
expectError(attempts.push({ source: 'vtoa', reason: 'ESRCH' }))
declare const known: Omit<RealAddress, 'reason'>
expectAssignable<RealAddress>(known)
expectAssignable<RealAddress>({ ...known, reason: 'no-toa' as const })
expectNotAssignable<RealAddress>({ ...known, reason: undefined })

// What happened can be counted, watched and logged.
expectType<Stats>(app.realIp.stats())
expectType<number>(app.realIp.stats().source.vtoa)
expectType<number>(app.realIp.stats().trust.untrusted)
expectType<number>(app.realIp.stats().reason['no-toa'])
expectError(app.realIp.stats().source.forwarded)
expectError(app.realIp.stats().connections++)
channel('fastify-real-ip:connection').subscribe((message) => {
  const { socket, realAddress } = message as ConnectionMessage
  expectType<Duplex>(socket)
  expectType<RealAddress>(realAddress)
})
Fastify({ logger: { serializers: { req: withRealIp() } } })
Fastify({ logger: { serializers: { req: withRealIp({ names: 'opentelemetry' }) } } })
Fastify({ logger: { serializers: { req: withRealIp((request) => ({ method: request.method }), { names: 'plain' }) } } })
expectType<(request: IncomingMessage) => { [field: string]: unknown }>(
  withRealIp((request: IncomingMessage) => ({ url: request.url })))
expectError(withRealIp({ names: 'ecs' }))
expectError(withRealIp({ names: undefined }))
expectError(withRealIp(() => ({}), 'opentelemetry'))
expectError(withRealIp({ mask: true }))
expectError(withRealIp({ mask: { ipv4: '24' } }))
expectError(withRealIp({ mask: { v4: 24 } }))
Fastify({ logger: { serializers: { req: withRealIp({ mask: {} }) } } })
Fastify({ logger: { serializers: { req: withRealIp(({ id }) => ({ id }), { mask: { ipv4: 24, ipv6: 48 } }) } } })
expectAssignable<FastifyRealIpOptions>({ bindLogger: { mask: { ipv6: 56 } } })
expectAssignable<WithRealIpOptions>({ mask: {} satisfies LogMask })
Fastify({ http2: true, logger: { serializers: { req: withRealIp() } } })
Fastify({
  http2: true,
  logger: { serializers: { req: withRealIp((request) => ({ id: request.id, url: request.url })) } }
})
Fastify({ http2: true, https: {}, logger: { serializers: { req: withRealIp(({ id }) => ({ id })) } } })
Fastify({
  http2: true,
  logger: { serializers: { req: withRealIp(({ realIp }) => { expectType<string | undefined>(realIp) }) } }
})
Fastify({ https: {}, logger: { serializers: { req: withRealIp(({ id }) => ({ id })) } } })
Fastify({ loggerInstance: pino({ serializers: { req: withRealIp() } }) })
expectAssignable<FastifyRealIpOptions>({ bindLogger: { names: 'plain' } satisfies WithRealIpOptions })
expectNotAssignable<FastifyRealIpOptions>({ bindLogger: undefined })

// realIpKey() makes what a rate limiter takes.
expectType<(request: AnyRequest) => string>(realIpKey())
expectType<(request: AnyRequest) => string>(realIpKey({ ipv6Subnet: 56 }))
expectAssignable<(request: FastifyRequest) => string>(realIpKey())
expectError(realIpKey({ ipv6Subnet: '56' }))
expectError(realIpKey({ ipv4Subnet: 24 }))
expectError(realIpKey({ ipv6Subnet: undefined }))
expectAssignable<RealIpKeyOptions>({})
app.register(rateLimit, { keyGenerator: realIpKey() })
app.register(rateLimit, {
  keyGenerator (request) {
    expectType<RealAddress>(request.realAddress)
    return request.realIp ?? realIpKey()(request)
  }
})
app.get('/limited', { config: { rateLimit: { keyGenerator: realIpKey({ ipv6Subnet: 48 }) } } }, () => {})

// PROXY headers are described, and encoded.
declare const proxy: ProxyProtocol
expectType<1 | 2>(proxy.version)
expectType<boolean>(proxy.local)
expectType<{ readonly address: string, readonly port: number | undefined } | undefined>(proxy.destination)
expectType<string | undefined>(proxy.gcpPscConnectionId)
expectType<number | undefined>(proxy.azureLinkId)
expectType<ProxySsl | undefined>(proxy.ssl)
expectType<boolean | undefined>(proxy.ssl?.verified)
expectType<ReadonlyArray<ProxyTlv>>(proxy.tlvs)
expectError(proxy.tlvs.push({ type: 1, value: '6832' }))
expectError(proxy.local = true)
expectType<
  'proxy-missing' | 'proxy-malformed' | 'proxy-too-long' | 'proxy-checksum' | 'proxy-cut-short' | 'proxy-timeout' |
  'proxy-evicted'
>({} as ProxyFaultReason)
const end: ProxyEndpoint = { address: '203.0.113.7', port: 51234 }
expectType<Buffer>(encodeProxyHeader())
expectType<Buffer>(encodeProxyHeader({ version: 1, source: end, destination: end }))
expectType<Buffer>(encodeProxyHeader({
  source: end,
  destination: end,
  tlvs: [{ type: 1, value: Buffer.from('h2') }, ...proxy.tlvs],
  checksum: true
}))
expectError(encodeProxyHeader({ version: 3 }))
expectError(encodeProxyHeader({ source: '203.0.113.7' }))
expectError(encodeProxyHeader({ source: undefined }))
expectError(encodeProxyHeader({ tlvs: [{ type: 1, value: 2 }] }))
expectAssignable<EncodeProxyHeaderOptions>({})
// realIpIn() makes what handlers, admit and limiters take.
const isStaff = realIpIn(['192.0.2.0/24', 'loopback'] as const)
expectType<(asked: AnyRequest | RealAddress) => boolean>(isStaff)
app.register(realIp, { admit: isStaff })
app.register(rateLimit, { allowList: isStaff })
app.get('/staff', (request) => {
  return isStaff(request) && isStaff(request.realAddress) && isStaff(app.realIp.lookup(request.raw))
})
expectError(realIpIn('192.0.2.0/24'))
expectError(realIpIn(undefined))
expectError(realIpIn())
expectError(isStaff('192.0.2.1'))
expectError(app.register(realIp, { admit: realIpIn }))
expectError(app.register(rateLimit, { keyGenerator: realIpKey }))

// Requests of every raw server will do.
const http2 = Fastify({ http2: true })
http2.register(realIp)
http2.get<{ Params: { id: string }, Body: { n: number } }>('/:id', (request) => {
  expectType<string | undefined>(request.realIp)
  expectType<RealAddress>(http2.realIp.lookup(request))
  expectType<RealAddress>(http2.realIp.lookup(request.raw))
  expectType<string>(realIpKey()(request))
  return isStaff(request) ? request.params.id : String(request.body.n)
})
http2.addHook('onRequest', async (request) => { expectType<boolean>(isStaff(request)) })
http2.setErrorHandler((_error, request) => realIpKey()(request))
const overHttps2 = Fastify({ http2: true, https: { allowHTTP1: true } })
overHttps2.get('/', (request) => [overHttps2.realIp.lookup(request), realIpKey()(request), isStaff(request)])
const overHttps = Fastify({ https: {} })
overHttps.get('/', (request) => [overHttps.realIp.lookup(request), realIpKey()(request), isStaff(request)])
declare const either: FastifyRequest<RouteGenericInterface, RawServerBase>
expectAssignable<AnyRequest>(either)
expectAssignable<Connection>(either)

// Other plugins can depend on it.
const dependent: FastifyPluginCallback = (instance: FastifyInstance, _options, done) => {
  instance.addHook('onRequest', async (request) => { instance.log.info(request.realIp) })
  done()
}
app.register(dependent)
