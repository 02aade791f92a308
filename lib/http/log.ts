import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { LogNames, WithRealIpOptions } from '../../types'
import { checkLogOptions, type LogOptions } from '../options/log'
import { compileMask, type Shown } from './mask'
import { isNotCalled, isOptions } from './not-called'

type Fields = Record<string, unknown>
type Serializer = (request: FastifyRequest) => unknown

interface Naming {
  /** The field of the address. */
  readonly address: string
  /** Adds the address and its provenance to a request's line. */
  write (to: Fields, address: Shown): Fields
}

// pino omits `undefined`.
const namings: Readonly<Record<LogNames, Naming>> = {
  plain: {
    address: 'realIp',
    write (to, { address, port, source, trust, reason, transportPeer }) {
      if (address !== undefined) to.realIp = address
      if (port !== undefined) to.realPort = port
      to.source = source
      to.trust = trust
      if (reason !== undefined) to.reason = reason
      if (transportPeer !== undefined) to.transportPeer = transportPeer
      return to
    }
  },
  // https://opentelemetry.io/docs/specs/semconv/registry/attributes/, 'client' and 'network'. A field 'source' would
  // collide with its source.address where dots create nested objects.
  opentelemetry: {
    address: 'client.address',
    write (to, { address, port, source, trust, reason, transportPeer }) {
      if (address !== undefined) to['client.address'] = address
      if (port !== undefined) to['client.port'] = port
      to['real_ip.source'] = source
      to['real_ip.trust'] = trust
      if (reason !== undefined) to['real_ip.reason'] = reason
      if (transportPeer !== undefined) {
        to['network.peer.address'] = transportPeer.address
        if (transportPeer.port !== undefined) to['network.peer.port'] = transportPeer.port
      }
      return to
    }
  }
}

const isArgument = isOptions('names', 'mask')

export function withRealIp (
  serializer?: Serializer | WithRealIpOptions, options: WithRealIpOptions = {}
): (request: FastifyRequest) => unknown {
  if (typeof serializer !== 'function') {
    if (isNotCalled(serializer, 'withRealIp', isArgument)) return withRealIp()(serializer as FastifyRequest) as never
    if (serializer !== undefined) return withRealIp(undefined, serializer)
  }
  const { names, mask } = checkLogOptions(options, "withRealIp()'s options")
  const { write } = namings[names]
  const { show, maskText } = compileMask(mask)
  if (serializer === undefined) {
    return (request) => {
      if (typeof request !== 'object' || request === null) return request
      const { realAddress } = request
      // Called for other objects named `req` too.
      return realAddress === undefined
        ? withRemoteAddress(request, maskText)
        : write(describe(request), show(realAddress))
    }
  }
  return (request) => {
    const fields = serializer(request)
    const realAddress = request?.realAddress
    return typeof fields === 'object' && fields !== null && realAddress !== undefined
      ? write({ ...fields }, show(realAddress))
      : fields
  }
}

// Fastify does not export its request serializer; this one writes the same fields.

function describe (request: FastifyRequest): Fields {
  const fields: Fields = { method: request.method, url: request.url, host: request.host }
  const version = request.headers?.['accept-version']
  if (version !== undefined) fields.version = version
  return fields
}

function withRemoteAddress (
  request: FastifyRequest, maskText: ((text: string) => string | undefined) | undefined
): Fields {
  const { ip } = request
  if (maskText !== undefined && typeof ip === 'string') return { ...describe(request), remoteAddress: maskText(ip) }
  return { ...describe(request), remoteAddress: ip, remotePort: request.socket?.remotePort }
}

type Factory = FastifyInstance['childLoggerFactory']
const kBound = Symbol('fastify-real-ip.bound')
type Raw = FastifyRequest['raw'] & { [kBound]?: true }
const binding = new WeakSet<Factory>()

/**
 * Binds the address to the logger of each request of a scope. `realIpOf` returns `undefined` while it is unknown.
 *
 * Fastify uses the child logger factory that a route found when it was declared. Loggers of routes and handlers that
 * were declared earlier, or use another factory, are replaced in onRequest, after their line "incoming request".
 */
export function bindLogger (
  app: FastifyInstance, { names, mask }: LogOptions, realIpOf: (raw: Raw) => string | undefined
): void {
  const name = namings[names].address
  const { maskText } = compileMask(mask)

  function addressOf (raw: Raw): string | undefined {
    const address = realIpOf(raw)
    return address === undefined || maskText === undefined ? address : maskText(address)
  }

  function bound (factory: Factory): Factory {
    if (binding.has(factory)) return factory
    let keeps: boolean | undefined
    const withAddress: Factory = function (logger, bindings, options, raw: Raw) {
      const address = addressOf(raw)
      if (address === undefined) return factory.call(this, logger, bindings, options, raw)
      // Not a child of the child, whose prototype would be another pino instance.
      bindings[name] = address
      const child = factory.call(this, logger, bindings, options, raw)
      raw[kBound] = true
      keeps ??= keepsBinding(child, name)
      return keeps ? child : child.child({ [name]: address }, {})
    }
    binding.add(withAddress)
    return withAddress
  }

  app.setChildLoggerFactory(bound(app.childLoggerFactory))
  app.addHook('onRoute', function (route) {
    route.childLoggerFactory = bound(route.childLoggerFactory ?? this.childLoggerFactory)
  })
  app.addHook('onRequest', (request: FastifyRequest, reply: FastifyReply, next: () => void) => {
    const address = (request.raw as Raw)[kBound] === true ? undefined : addressOf(request.raw)
    if (address !== undefined) request.log = reply.log = request.log.child({ [name]: address })
    next()
  })
  renewDefault404(app)
}

/** Whether a factory's loggers keep the given bindings. Only pino's loggers expose them. */
function keepsBinding (logger: object, name: string): boolean {
  try {
    const { bindings } = logger as { bindings?: () => Fields }
    return typeof bindings !== 'function' || name in bindings.call(logger)
  } catch {
    return true
  }
}

/** Applies a plugin's hooks and factories to the default 404 handler too, which is created before any plugin. */
function renewDefault404 (app: FastifyInstance): void {
  // In an encapsulated scope this would set that scope's own handler.
  if (app.pluginName.split(' -> ')[0] !== 'fastify') return
  const { setNotFoundHandler } = app as unknown as { setNotFoundHandler: () => void }
  try {
    setNotFoundHandler.call(app)
  } catch {
    // The user has set one.
  }
}
