import { isDeepStrictEqual } from 'node:util'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { FastifyRealIpOptions } from '../types'
import { FST_REAL_IP_ALREADY_REGISTERED } from './errors'
import { realIpIn } from './http/allow-list'
import { bindLogger, withRealIp } from './http/log'
import { refuseFactory } from './http/not-called'
import { checkOptions } from './options/options'
import { realIpKey } from './http/rate-limit'
import { register, type Registration } from './plugin'

// One for each server, whatever the number of scopes, or of copies of this package, that register the plugin: a
// connection is read once, and its saved SYN can be.
const registry = Symbol.for('fastify-real-ip.registrations')
const shared = globalThis as { [registry]?: WeakMap<object, Registration> }
const registrations = shared[registry] ??= new WeakMap()

function fastifyRealIp (app: FastifyInstance, given: FastifyRealIpOptions, done: (error?: Error) => void): void {
  try {
    const options = checkOptions(given)
    for (const name of ['admit', 'trustedPeers'] as const) refuseFactory(options[name], { realIpIn, realIpKey, withRealIp }, name)
    const { server } = app
    let registration = registrations.get(server)
    if (registration === undefined) {
      registration = register(app, options, () => { registrations.delete(server) })
      registrations.set(server, registration)
    } else if (!isDeepStrictEqual(registration.options, options)) {
      throw new FST_REAL_IP_ALREADY_REGISTERED()
    }
    decorate(app, registration)
    done()
  } catch (error) {
    done(error as Error)
  }
}

function decorate (app: FastifyInstance, { options, realIp, guardRequests, answerRequest, realIpOf, addressOf }: Registration): void {
  // A parent scope has registered the plugin, and this one inherits what it decorated.
  if (app.hasDecorator('realIp')) return
  guardRequests(app)
  app.decorate('realIp', realIp)
  app.decorateRequest('realIp', {
    getter (this: FastifyRequest) { return realIpOf(this) }
  })
  app.decorateRequest('realAddress', {
    getter (this: FastifyRequest) { return answerRequest(this) }
  })
  if (options.bindLogger !== undefined) bindLogger(app, options.bindLogger, addressOf)
}

const plugin = fp(fastifyRealIp, { fastify: '5.x', name: 'fastify-real-ip' })

module.exports = plugin
module.exports.default = plugin
module.exports.fastifyRealIp = plugin
module.exports.withRealIp = withRealIp
module.exports.realIpKey = realIpKey
module.exports.realIpIn = realIpIn
