import type { Server } from 'node:net'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { RealAddress, RealIp } from '../types'
import { listeningFdOf } from './node/sockets'
import { FST_REAL_IP_INVALID_OPTION, FST_REAL_IP_NATIVE_UNAVAILABLE, FST_REAL_IP_NO_TRANSPORT_PEER } from './errors'
import { Checked, type Evidence } from './trust/evidence'
import { Guard } from './trust/guard'
import { loadLibc } from './kernel/libc'
import { Observer } from './http/observer'
import type { Options } from './options/options'
import { compileRanges } from './address/ranges'
import { createResolve } from './sources/resolve'
import { followServers, tellsOfServers } from './node/servers'
import { chooseSources, chooseWitnesses } from './sources/choose'
import { TransportPeers } from './kernel/peer-search'
import type { Ruling } from './trust/table'
import { textOf } from './trust/verdict'
import { createVirtualServerReader } from './kernel/virtual-server'
import { Warnings } from './warnings'

/** What a server has of this plugin. Other copies of the package in the process use it too: names and meanings stay. */
export interface Registration {
  readonly options: Options
  guardRequests (scope: FastifyInstance): void
  answerRequest (request: FastifyRequest): RealAddress
  /** The address of that answer. */
  realIpOf (request: FastifyRequest): string | undefined
  /** The address of a raw request's client; undefined also while it is not known who sent it. */
  addressOf (raw: FastifyRequest['raw']): string | undefined
  readonly realIp: RealIp
}

// A request keeps what it began with, also when the list is swapped: what the policy made of its connection, and the
// answer once that is asked for.
const kRuling = Symbol('fastify-real-ip.ruling')
const kAnswer = Symbol('fastify-real-ip.answer')
type Request = FastifyRequest & { [kRuling]?: Ruling, [kAnswer]?: RealAddress }

/** Throws where the options cannot be met; then nothing is left behind. */
export function register (app: FastifyInstance, options: Options, onClose: () => void): Registration {
  const libc = loadLibc()
  const native = typeof libc === 'string' ? undefined : libc
  if (typeof libc === 'string') {
    if (options.require) throw new FST_REAL_IP_NATIVE_UNAVAILABLE(libc)
    app.log.warn(`fastify-real-ip: ${libc}; request.realIp is the socket's own remote address, the balancer's if there is one`)
  }
  const warnings = new Warnings(app.log)
  const peers = native && new TransportPeers(native)
  const sources = native && peers && chooseSources(native, peers, options, (message) => { app.log.info(message) })
  const guard = new Guard(options, native && peers && sources && {
    peers,
    resolve: createResolve(sources),
    witnesses: chooseWitnesses(sources, peers, options),
    readVirtualServer: options.virtualServer ? createVirtualServerReader(native) : undefined
    // Fastify gives requests this property with 'trustProxy' alone.
  }, app.log, warnings, app.hasRequestDecorator('ips'))
  const observer = new Observer(guard, options.forwarded)

  function prepare (server: Server): Error | undefined {
    if (!guard.hasPolicy) return undefined
    const why = peers === undefined ? libc as string : armListener(peers, server)
    // 'any' believes every peer, and can do without knowing it.
    return why === undefined || options.trustedPeers === 'any' ? undefined : new FST_REAL_IP_NO_TRANSPORT_PEER(why)
  }

  const error = app.server.listening ? prepare(app.server) : undefined
  if (error !== undefined) throw error
  if (guard.hasPolicy && options.trustedPeers !== 'any' && !tellsOfServers(process.versions.node)) {
    throw new FST_REAL_IP_NO_TRANSPORT_PEER(`Node.js ${process.versions.node} does not tell which servers begin to listen. Use 20.16, 22.3 or later`)
  }
  const unfollow = followServers(app.server, observer.listeners, prepare)
  app.addHook('onClose', (_instance, done) => {
    unfollow()
    peers?.close()
    onClose()
    done()
  })

  const guardsRequests = guard.hasPolicy || options.admit !== undefined

  function answerRequest (request: Request): RealAddress {
    const kept = request[kAnswer]
    if (kept !== undefined) return kept
    const evidence = observer.ofRequest(request.raw)
    if (evidence === undefined) return observer.lookup(request.raw)
    const ruling = request[kRuling]
    const answer = observer.answer(request.raw, evidence, ruling)
    // Where no request waits until it is known who sent it, some ask before.
    if (ruling !== undefined || (evidence instanceof Checked && !guardsRequests)) request[kAnswer] = answer
    return answer
  }

  function begin (request: Request, reply: FastifyReply, evidence: Evidence | undefined, next: () => void): void {
    if (evidence === undefined) {
      request[kAnswer] = observer.lookup(request.raw)
    } else if (evidence instanceof Checked) {
      const ruling = guard.allows(evidence)
      if (ruling === undefined) {
        reply.hijack()
        return observer.close(request.raw)
      }
      request[kRuling] = ruling
    }
    next()
  }

  /** Lets no request of a scope begin before it is decided what becomes of its connection. */
  function guardRequests (scope: FastifyInstance): void {
    if (!guardsRequests) return
    scope.addHook('onRequest', (request: Request, reply: FastifyReply, next: () => void) => {
      const evidence = observer.ofRequest(request.raw)
      if (evidence instanceof Checked && evidence.pending) {
        guard.whenKnown(evidence, () => { begin(request, reply, evidence, next) })
      } else {
        begin(request, reply, evidence, next)
      }
    })
  }

  function answerBegun (connection: object): RealAddress | undefined {
    const request = connection as Request
    return request[kRuling] === undefined && request[kAnswer] === undefined ? undefined : answerRequest(request)
  }

  if (native !== undefined) warnOfPolicy(options, warnings)
  return {
    options,
    guardRequests,
    answerRequest,
    realIpOf (request: Request) {
      const evidence = observer.ofRequest(request.raw)
      // What no policy judged is the same for all requests.
      const address = evidence?.address
      if (address !== undefined) return address
      const ruling = request[kRuling]
      if (evidence instanceof Checked && ruling !== undefined && options.forwarded === undefined) return textOf(evidence, ruling)
      return answerRequest(request).address
    },
    addressOf (raw) {
      const evidence = observer.ofRequest(raw)
      if (evidence === undefined) return observer.lookup(raw).address
      if (!(evidence instanceof Checked)) return evidence.address
      return evidence.pending ? undefined : observer.answer(raw, evidence).address
    },
    realIp: {
      lookup: (connection) => observer.lookup(connection, answerBegun),
      setTrustedPeers (trustedPeers) {
        if (!guard.hasPolicy) {
          throw new FST_REAL_IP_INVALID_OPTION(
            "'trustedPeers' can be swapped only where it was given: register the plugin with it, [] for nobody")
        }
        guard.setTrustedPeers(trustedPeers)
      },
      stats: () => guard.counters.read()
    }
  }
}

/** Why a listening server's connections cannot be told by their true sender; undefined where they can. */
function armListener (peers: TransportPeers, server: Server): string | undefined {
  if (typeof server.address() === 'string') return undefined
  const fd = listeningFdOf(server)
  if (fd < 0) {
    return 'this process has no listening socket of its own (a cluster worker, whose primary accepts). ' +
      'Give each worker one with listen({ reusePort: true }), Node.js 22.12 or later, or one worker with listen({ exclusive: true })'
  }
  const errno = peers.arm(fd)
  return errno && `the listening socket refuses TCP_SAVE_SYN (${errno}). Listen on a plain TCP socket, not MPTCP, on Linux 4.3 or later`
}

function warnOfPolicy ({ trustedPeers, forwarded }: Options, warnings: Warnings): void {
  if (trustedPeers === undefined) warnings.warn('FORGEABLE')
  if (Array.isArray(trustedPeers) && forwarded !== undefined &&
    compileRanges(trustedPeers, 'trustedPeers').overlaps(compileRanges(forwarded.trust, 'forwarded.trust'))) {
    warnings.warn('OVERLAP')
  }
}
