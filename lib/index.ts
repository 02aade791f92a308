import { isDeepStrictEqual } from 'node:util'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { FastifyRealIpOptions } from '../types'
import { FST_REAL_IP_ALREADY_REGISTERED, FST_REAL_IP_NAME_TAKEN } from './errors'
import { realIpIn } from './http/allow-list'
import { bindLogger, withRealIp } from './http/log'
import { refuseFactory } from './http/not-called'
import { realIpKey } from './http/rate-limit'
import { encodeProxyHeader } from './sources/proxy-encode'
import { checkOverride, overrideRequest } from './http/override'
import { checkOptions, type Options } from './options/options'
import { register, type Registration, Station } from './plugin'
import { Warnings } from './warnings'

// One station per server, shared by all scopes, applications and copies of this package: a saved SYN can be read only
// once.
const registry = Symbol.for('fastify-real-ip.registrations')
const shared = globalThis as { [registry]?: WeakMap<object, Station> }
const stations = shared[registry] ??= new WeakMap()

function fastifyRealIp (app: FastifyInstance, given: FastifyRealIpOptions, done: (error?: Error) => void): void {
  try {
    const warnings = new Warnings(app.log)
    const options = checkOptions(given, (name) => { warnings.unknownOption(name) })
    for (const name of ['admit', 'trustedPeers'] as const) {
      refuseFactory(options[name], { realIpIn, realIpKey, withRealIp }, name)
    }
    decorate(app, findOrRegister(app, options))
    done()
  } catch (error) {
    done(error as Error)
  }
}

/** Throws if the same application registers other options. Another application on the same server takes over. */
function findOrRegister (app: FastifyInstance, options: Options): Registration {
  const { server } = app
  const station = stations.get(server) ?? new Station()
  for (const registration of station.registrations) {
    if (registration.application !== app.initialConfig) continue
    if (!isDeepStrictEqual(registration.options, options)) throw new FST_REAL_IP_ALREADY_REGISTERED()
    return registration
  }
  checkNames(app, options)
  const registration = register(app, options, station, () => { stations.delete(server) })
  stations.set(server, station)
  return registration
}

/** Throws if a decorator's name is taken. Changes nothing. */
function checkNames (app: FastifyInstance, options: Options): void {
  if (options.overrideRequest) checkOverride(app)
  if (app.hasDecorator('realIp')) throw new FST_REAL_IP_NAME_TAKEN('app.realIp')
  for (const name of ['realIp', 'realAddress']) {
    if (app.hasRequestDecorator(name)) throw new FST_REAL_IP_NAME_TAKEN(`request.${name}`)
  }
}

function decorate (app: FastifyInstance, { options, observer, realIp, requests }: Registration): void {
  // The decorators are inherited from a parent scope that registered the plugin.
  if (app.hasDecorator('realIp') && app.realIp === realIp) return
  checkNames(app, options)
  requests.guard(app)
  app.decorate('realIp', realIp)
  app.decorateRequest('realIp', {
    getter (this: FastifyRequest) { return requests.address(this) }
  })
  app.decorateRequest('realAddress', {
    getter (this: FastifyRequest) { return requests.answer(this) }
  })
  if (options.overrideRequest) {
    overrideRequest(app, options.forwarded?.header ?? 'x-forwarded-for', observer.readHops,
      (request) => requests.answer(request))
  }
  if (options.bindLogger !== undefined) bindLogger(app, options.bindLogger, (raw) => requests.addressOfRaw(raw))
}

const plugin = fp(fastifyRealIp, { fastify: '5.x || 6.x', name: 'fastify-real-ip' })

module.exports = plugin
module.exports.default = plugin
module.exports.fastifyRealIp = plugin
module.exports.withRealIp = withRealIp
module.exports.realIpKey = realIpKey
module.exports.realIpIn = realIpIn
module.exports.encodeProxyHeader = encodeProxyHeader
