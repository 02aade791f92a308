import type { FastifyInstance, FastifyRequest, FastifyServerOptions } from 'fastify'
import fastifyRealIp = require('fastify-real-ip')
import { IPv4, IPv6 } from './network'

/** A server to measure. All send the same body, and get the same request with an X-Forwarded-For of the same length. */
export interface Variant {
  readonly options?: FastifyServerOptions
  readonly register?: (app: FastifyInstance) => unknown
  readonly address: (request: FastifyRequest) => string | undefined
}

const client = IPv4.from ?? IPv4.host
const trustedPeers = [client, IPv6.from ?? IPv6.host]
export const plain: Variant = { address: () => client }

export const variants: Readonly<Record<string, Variant>> = {
  plain,
  control: plain,
  'fastify-real-ip': { register: (app) => app.register(fastifyRealIp), address: (request) => request.realIp },
  'fastify-real-ip, trustedPeers': {
    register: (app) => app.register(fastifyRealIp, { trustedPeers }), address: (request) => request.realIp
  },
  'trustProxy: true': { options: { trustProxy: true }, address: (request) => request.ip }
}
