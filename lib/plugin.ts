import type { Server } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { RealIp, TrustedPeers } from '../types'
import type { Address } from './address/address'
import { compileRanges } from './address/ranges'
import { FST_REAL_IP_INVALID_OPTION, FST_REAL_IP_NATIVE_UNAVAILABLE, FST_REAL_IP_NO_TRANSPORT_PEER } from './errors'
import { Arrivals } from './http/arrivals'
import { Observer } from './http/observer'
import { hasTrustProxy } from './http/override'
import { type Owner, Owners } from './http/owners'
import { HeaderPolicy } from './http/proxy-headers'
import { Requests } from './http/requests'
import { type Libc, loadLibc } from './kernel/libc'
import { Remembered } from './node/remembered'
import { followServers, tellsOfServers } from './node/servers'
import { isUnixListener, listeningFdOf, socketOfSession } from './node/sockets'
import type { Options } from './options/options'
import { checkForwardedTrust } from './options/trust'
import { openKernel, Senders } from './sources/choose'
import type { Evidence } from './trust/checked'
import { Guard } from './trust/guard'
import { Judge } from './trust/judge'
import { Suspicions } from './trust/suspicions'
import { Tally } from './trust/tally'
import { Warnings } from './warnings'

/** The plugin's state for one application. Other copies of the package use it too: keep names and meanings. */
export interface Registration {
  /** Identifies the application on a shared server; all of its scopes have the same. */
  readonly application: object
  readonly options: Options
  readonly requests: Requests
  readonly observer: Observer
  readonly realIp: RealIp
}

/** The plugin's state for one server. */
export class Station {
  readonly owners = new Owners()
  readonly remembered = new Remembered<Evidence>()
  readonly arrivals = new Arrivals(this.owners, this.remembered)
  readonly registrations = new Set<Registration>()
  /** Stops following the server; `undefined` while it is not followed. */
  unfollow: (() => void) | undefined
}

/**
 * Throws if the options cannot be met, and leaves nothing behind. Calls `onEmpty` after the last application has
 * closed.
 */
export function register (app: FastifyInstance, options: Options, station: Station, onEmpty: () => void): Registration {
  const { owners, remembered, arrivals, registrations } = station
  const libc = loadLibc()
  const warnings = new Warnings(app.log)
  if (typeof libc === 'string') {
    if (options.require) throw new FST_REAL_IP_NATIVE_UNAVAILABLE(libc)
    const why = whatIsMissing(options)
    if (why !== undefined) app.log.warn(`fastify-real-ip: ${libc}; ${why}`)
  }
  const senders = typeof libc === 'string'
    ? undefined
    : owners.shareSenders(() => new Senders(libc, warnings.searchFailed))
  const owner = createOwner(app, options, senders, warnings, (peer) => observer.isProxy(peer))
  const observer = new Observer(owner, remembered)

  const error = app.server.listening ? arm(app.server, owner, senders, libc) : undefined
  if (error !== undefined) throw error
  if (owner.judge.hasPolicy && options.trustedPeers !== 'any' && !tellsOfServers(process.versions.node)) {
    throw new FST_REAL_IP_NO_TRANSPORT_PEER(`Node.js ${process.versions.node} does not report servers before they ` +
      'listen. Use 20.16 or a later 20, or 22.3 or later')
  }
  if (typeof libc !== 'string') warnOfOptions(options, warnings)

  const requests = new Requests(observer, owner.judge)
  const registration: Registration = {
    application: app.initialConfig,
    options,
    requests,
    observer,
    realIp: createRealIp(owner, observer, requests)
  }
  registrations.add(registration)
  owners.add(owner)
  // The first application decides at once; one that takes over a running server decides from its onListen hook on.
  if (owners.isEmpty) takeOver(station, owner)
  station.unfollow ??= followServers(app.server, {
    accept: (socket, server, handOver) => arrivals.accept(socket, server, handOver),
    session: (session) => { remembered.inherit(session, socketOfSession(session)) },
    stream: (stream) => { remembered.inherit(stream, stream.session) },
    // Any of them may decide about this server's connections.
    prepare: (server) => owners.first((owner) => arm(server, owner, senders, libc)),
    unprepared: (server) => senders && owners.first((owner) => whyUnprepared(server, owner))
  })

  addHooks(app, station, owner, registration, onEmpty)
  return registration
}

/** Makes an application decide about the connections of a server. */
function takeOver ({ owners, arrivals }: Station, owner: Owner): void {
  owners.put(owner)
  arrivals.open()
}

/** An application decides from its onListen hook on, and no longer once it has closed. */
function addHooks (
  app: FastifyInstance, station: Station, owner: Owner, registration: Registration, onEmpty: () => void
): void {
  const { owners, arrivals, registrations } = station
  app.addHook('onReady', (done) => {
    owners.setReady(owner)
    done()
  })
  app.addHook('onListen', (done) => {
    takeOver(station, owner)
    done()
  })
  app.addHook('preClose', (done) => {
    if (owners.servesAlone(owner)) arrivals.close()
    done()
  })
  app.addHook('onClose', (_instance, done) => {
    registrations.delete(registration)
    if (owners.servesAlone(owner)) owners.senders?.search.close()
    if (owners.remove(owner)) {
      station.unfollow?.()
      onEmpty()
    }
    done()
  })
}

/** The consequence for users if no system call can be made. */
function whatIsMissing ({ forwardedOnly }: Options): string | undefined {
  if (!forwardedOnly) return "request.realIp is the socket's remote address, which is the balancer's if there is one"
  // A module can have rewritten the remote address.
  return process.platform === 'linux'
    ? 'the senders of connections are unknown: headers are ignored, and request.realIp is undefined'
    : undefined
}

function createOwner (
  app: FastifyInstance, options: Options, senders: Senders | undefined, warnings: Warnings,
  isProxy: (peer: Address) => boolean
): Owner {
  const kernel = senders && openKernel(senders, options, (message) => { warnings.info(message) })
  const judge = new Judge(options, warnings.error)
  const suspicions = new Suspicions(warnings, hasTrustProxy(app), isProxy)
  const { hasPolicy, canRefuse } = judge
  // Only on Linux do kernel modules rewrite the remote address. A policy for claims needs the verified transport peer.
  const trustsRemote = options.forwardedOnly && process.platform !== 'linux'
  const guard = new Guard(kernel, { hasPolicy, canRefuse, trustsRemote }, suspicions)
  const headers = options.proxyProtocol && new HeaderPolicy(options.proxyProtocol, judge)
  return { options, judge, suspicions, warnings, guard, headers, tally: new Tally() }
}

/**
 * Enables TCP_SAVE_SYN on a server before it accepts connections. Returns an error if a policy needs it and cannot have
 * it.
 */
function arm (
  server: Server, { options, judge, warnings }: Owner, senders: Senders | undefined, libc: Libc | string
): Error | undefined {
  if (!judge.hasPolicy || isUnixListener(server)) return undefined
  const why = senders === undefined ? libc as string : whyNoTransportPeer(senders, server, warnings)
  if (why === undefined) {
    if (senders?.search.isUsable() === false) warnings.warn('NO_SOCK_DIAG')
    return undefined
  }
  // 'any' trusts every peer, known or not. A missing transport peer does not justify an outage for HTTP proxies alone.
  const canDoWithout = options.trustedPeers === 'any' || (options.forwardedOnly && senders === undefined)
  return canDoWithout ? undefined : new FST_REAL_IP_NO_TRANSPORT_PEER(why)
}

/**
 * Arms a listening server. Returns why the transport peers of its connections cannot be known; `undefined` if they can.
 */
function whyNoTransportPeer (senders: Senders, server: Server, warnings: Warnings): string | undefined {
  const fd = listeningFdOf(server)
  // Without a listening socket, sock_diag looks up each connection.
  if (fd < 0) {
    warnings.warn('ROUND_ROBIN')
    return undefined
  }
  const errno = senders.arm(fd)
  return errno && `the listening socket refuses TCP_SAVE_SYN (${errno}). Listen on a plain TCP socket, not MPTCP, on ` +
    'Linux 4.3 or later'
}

/** The error for a server that began to listen unnoticed, e.g. one from a foreign `serverFactory`. */
function whyUnprepared (server: Server, { options, judge }: Owner): Error | undefined {
  if (!judge.hasPolicy || options.trustedPeers === 'any' || isUnixListener(server)) return undefined
  return new FST_REAL_IP_NO_TRANSPORT_PEER('this server began to listen before the plugin could prepare it. Let ' +
    'serverFactory return a server of node:http, node:https or node:http2, and run it on Node.js')
}

function createRealIp ({ options, judge, tally, warnings }: Owner, observer: Observer, requests: Requests): RealIp {
  return {
    lookup: (connection) => observer.lookup(connection, (request) => requests.kept(request)),
    setTrustedPeers (trustedPeers) {
      if (!judge.hasPolicy || options.forwardedOnly) {
        throw new FST_REAL_IP_INVALID_OPTION(
          "'trustedPeers' can be replaced only if the plugin was registered with it; [] trusts nobody")
      }
      warnOfEverybody(judge.setTrustedPeers(trustedPeers), warnings)
    },
    setForwardedTrust (trust) {
      if (observer.readHops === undefined) {
        throw new FST_REAL_IP_INVALID_OPTION("'forwarded.trust' can be replaced only if the plugin was registered " +
          "with 'forwarded'")
      }
      const checked = checkForwardedTrust(trust)
      observer.setForwardedTrust(checked)
      warnOfEverybody(checked.addresses, warnings)
    },
    stats: () => tally.read()
  }
}

function warnOfOptions ({ trustedPeers, proxyProtocol, forwarded }: Options, warnings: Warnings): void {
  if (trustedPeers === undefined) warnings.warn('FORGEABLE')
  for (const list of [trustedPeers, proxyProtocol?.from?.addresses, forwarded?.trust.addresses]) {
    warnOfEverybody(list, warnings)
  }
  if (!Array.isArray(trustedPeers)) return
  if (forwarded !== undefined &&
    compileRanges(trustedPeers, 'trustedPeers').overlaps(compileRanges(forwarded.trust.addresses, 'forwarded.trust'))) {
    warnings.warn('OVERLAP')
  }
}

function warnOfEverybody (list: TrustedPeers | undefined, warnings: Warnings): void {
  if (Array.isArray(list) && list.some((entry) => entry.endsWith('/0'))) warnings.warn('EVERYBODY')
}
