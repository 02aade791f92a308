import http from 'node:http'
import type { FastifyInstance, FastifyPluginCallback, FastifyRequest, FastifyServerOptions } from 'fastify'
import fastifyRealIp = require('fastify-real-ip')
import type { FastifyRealIpOptions } from '../types'
import { IPv4, IPv6 } from './network'

const fastifyIp = require('fastify-ip') as FastifyPluginCallback
const { getClientIp } = require('request-ip') as { getClientIp (request: FastifyRequest['raw']): string | undefined }

/** A server to measure. All send the same body and get the same request, with an X-Forwarded-For of the same length. */
export interface Variant {
  readonly options?: FastifyServerOptions
  readonly register?: (app: FastifyInstance) => unknown
  readonly address: (request: FastifyRequest) => string | undefined
}

const client = IPv4.from ?? IPv4.host
const trustedPeers = [client, IPv6.from ?? IPv6.host]
const plain: Variant = { address: () => client }
const plugin = (options: FastifyRealIpOptions = {}): Variant =>
  ({ register: (app) => app.register(fastifyRealIp, options), address: (request) => request.realIp })

/** Plain Fastify, twice: the ratio of both is the control. */
const baselines: Readonly<Record<string, Variant>> = { plain, control: plain }

/** The effect of any hook: a server without hooks may be slower. Plugins have one. */
const emptyHook: Readonly<Record<string, Variant>> = {
  'plain, with an onRequest hook that does nothing': {
    ...plain,
    register: (app) => { app.addHook('onRequest', (_request, _reply, done) => { done() }) }
  }
}

/** The plugin with its defaults, other ways to read an address per request, and the two references. */
export const resolvers: Readonly<Record<string, Variant>> = {
  ...baselines,
  ...emptyHook,
  'fastify-real-ip': plugin(),
  'fastify-real-ip, trustedPeers': plugin({ trustedPeers }),
  'request.ip': { address: (request) => request.ip },
  'request.ip, trustProxy: true': { options: { trustProxy: true }, address: (request) => request.ip },
  'request.ip, trustProxy: list': { options: { trustProxy: trustedPeers }, address: (request) => request.ip },
  'request-ip': { address: (request) => getClientIp(request.raw) ?? undefined },
  'fastify-ip': { register: (app) => app.register(fastifyIp), address: (request) => request.ip }
}

/** This plugin with and without a policy, and the plugins that it is compared to one by one. */
export const plugins = ['fastify-real-ip', 'fastify-real-ip, trustedPeers'] as const
export const otherResolvers = Object.keys(resolvers)
  .filter((name) => !(name in baselines) && !(name in emptyHook) && !(plugins as readonly string[]).includes(name))

/** Of clients on loopback, which the plugin looks at twice. */
export const loopback: Readonly<Record<string, Variant>> = {
  ...baselines,
  'fastify-real-ip': plugin(),
  'fastify-real-ip, trustedPeers: loopback': plugin({ trustedPeers: [IPv4.host] }),
  'request.ip, trustProxy: true': { options: { trustProxy: true }, address: (request) => request.ip }
}

/** Behind an HTTP proxy, which names the client in X-Forwarded-For. */
export const proxied: Readonly<Record<string, Variant>> = {
  ...baselines,
  'fastify-real-ip, forwarded': plugin({ trustedPeers: [], forwarded: { trust: trustedPeers } }),
  'request.ip, trustProxy: list': { options: { trustProxy: trustedPeers }, address: (request) => request.ip }
}

/** Sources that need no module: their cost is per connection, not per request. */
export const sources: Readonly<Record<string, Variant>> = {
  "fastify-real-ip, sources: ['getpeername']": plugin({ sources: ['getpeername'] }),
  "fastify-real-ip, sources: ['getpeername'], trustedPeers": plugin({ sources: ['getpeername'], trustedPeers }),
  "fastify-real-ip, sources: ['saved-syn'], trustedPeers":
    plugin({ sources: ['saved-syn'], toa: 'alibaba', trustedPeers })
}

/** Variants measured while vtoa answers. */
export const withModule: Readonly<Record<string, Variant>> = {
  ...baselines,
  "fastify-real-ip, sources: ['vtoa']": plugin({ sources: ['vtoa'] }),
  "fastify-real-ip, sources: ['vtoa'], trustedPeers": plugin({ sources: ['vtoa'], trustedPeers })
}

/** Others' PROXY headers, if it is installed: it wraps the module that makes servers. */
export const findhit = tryFindhit()

/** The plugin where the client's connections begin with a PROXY header, and the same where others' do. */
export const proxies: Readonly<Record<string, Variant>> = {
  'PROXY headers': plugin({ sources: ['proxy-protocol'], trustedPeers }),
  'PROXY headers of others': plugin({
    sources: ['proxy-protocol'], trustedPeers, proxyProtocol: { from: ['192.0.2.1'] }
  }),
  ...findhit && { 'findhit-proxywrap': findhit }
}

function tryFindhit (): Variant | undefined {
  try {
    const { proxy } = require('findhit-proxywrap') as { proxy (module: typeof http, options: object): typeof http }
    const wrapped = proxy(http, { strict: true })
    return {
      options: { serverFactory: (handler) => wrapped.createServer(handler) },
      address: ({ raw }) => raw.socket.remoteAddress
    }
  } catch {
    return undefined
  }
}

export const variants: Readonly<Record<string, Variant>> = {
  ...resolvers, ...loopback, ...proxied, ...sources, ...withModule, ...proxies
}
