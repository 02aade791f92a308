import { isDeepStrictEqual } from 'node:util'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import type { FastifyRealIpOptions, RealIp } from '../types'
import { FST_REAL_IP_ALREADY_REGISTERED, FST_REAL_IP_NATIVE_UNAVAILABLE } from './errors'
import { loadLibc } from './libc'
import { Observer } from './observer'
import { checkOptions, type Options } from './options'
import { createResolve, createSources, type Resolve } from './resolve'
import { followServers } from './servers'

interface Registration {
  readonly options: Options
  readonly observer: Observer
}

// One for each server, whatever the number of scopes that register the plugin: a connection is read once.
const registrations = new WeakMap<object, Registration>()

function fastifyRealIp (app: FastifyInstance, given: FastifyRealIpOptions, done: (error?: Error) => void): void {
  try {
    const options = checkOptions(given)
    let registration = registrations.get(app.server)
    if (registration === undefined) {
      registration = register(app, options)
    } else if (!isDeepStrictEqual(registration.options, options)) {
      throw new FST_REAL_IP_ALREADY_REGISTERED()
    }
    decorate(app, registration.observer)
    done()
  } catch (error) {
    done(error as Error)
  }
}

function register (app: FastifyInstance, options: Options): Registration {
  const observer = new Observer(chooseResolve(app, options))
  const unfollow = followServers(app.server, observer.listeners)
  const registration = { options, observer }
  registrations.set(app.server, registration)
  app.addHook('onClose', (instance, done) => {
    unfollow()
    registrations.delete(instance.server)
    done()
  })
  return registration
}

/** Throws where the options require a kernel source and none can work. */
function chooseResolve (app: FastifyInstance, options: Options): Resolve | undefined {
  const libc = loadLibc()
  if (typeof libc === 'string') {
    if (options.require) throw new FST_REAL_IP_NATIVE_UNAVAILABLE(libc)
    app.log.warn(`fastify-real-ip: ${libc}; request.realIp is the socket's own remote address, the balancer's if there is one`)
    return undefined
  }
  const sources = createSources(options.sources, libc)
  if (options.require) {
    const missing = sources.map((source) => source.missing())
    if (!missing.includes(undefined)) throw new FST_REAL_IP_NATIVE_UNAVAILABLE(missing.join('; '))
  }
  return createResolve(sources)
}

function decorate (app: FastifyInstance, observer: Observer): void {
  // A parent scope has registered the plugin, and this one inherits what it decorated.
  if (app.hasDecorator('realIp')) return
  const realIp: RealIp = { lookup: (connection) => observer.lookup(connection) }
  app.decorate('realIp', realIp)
  app.decorateRequest('realIp', {
    getter (this: FastifyRequest) { return observer.ofRequest(this.raw).address }
  })
  app.decorateRequest('realAddress', {
    getter (this: FastifyRequest) { return observer.ofRequest(this.raw) }
  })
}

const plugin = fp(fastifyRealIp, { fastify: '5.x', name: 'fastify-real-ip' })

module.exports = plugin
module.exports.default = plugin
module.exports.fastifyRealIp = plugin
