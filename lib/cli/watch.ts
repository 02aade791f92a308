import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo, Server, Socket } from 'node:net'
import type { FastifyBaseLogger } from 'fastify'
import type { RealAddress } from '../../types'
import { formatAddress } from '../address/address'
import { Arrivals } from '../http/arrivals'
import { Owners } from '../http/owners'
import { HeaderPolicy } from '../http/proxy-headers'
import type { Libc, openCapture } from '../kernel/libc'
import { createEndpoint, type Endpoint } from '../kernel/sockaddr'
import { decodeSender, hasPayload } from '../kernel/tcp-header'
import { Remembered } from '../node/remembered'
import { followServers } from '../node/servers'
import { fdOf, listeningFdOf } from '../node/sockets'
import { kernelSources } from '../options/options'
import { chooseSources, openKernel, Senders } from '../sources/choose'
import { Guard, type Sender } from '../trust/guard'
import { Judge } from '../trust/judge'
import { Suspicions } from '../trust/suspicions'
import { Tally } from '../trust/tally'
import { Warnings } from '../warnings'
import type { WatchArguments } from './arguments'
import { Handshakes } from './capture'
import { explainListen } from './explain-listen'
import { noteFirstBytes } from './first-bytes'
import { Modules, type SocketFamily } from './modules'
import type { Terminal } from './paint'
import { describeProxyBytes } from './proxy'
import { drawSeen, endpoint as endpointText, noteOn } from './seen'
import type { Asked, Seen } from './sighting'
import { readSegmentOptions } from './segment-options'

// The time for open connections to be answered after the last one was printed, in milliseconds.
const GRACE = 1000

export interface Surroundings {
  readonly libc: Libc | string
  readonly openCapture: typeof openCapture
  /** Prints a connection. */
  readonly say: (text: string) => void
  /** Prints anything else. */
  readonly note: (text: string) => void
  readonly terminal: Terminal
  /** Ends `watch`. */
  readonly signal: AbortSignal
}

/** What is read before the plugin decides, because it may reset the connection. */
type Look = Pick<Seen, 'transportPeer' | 'syn' | 'sources'>

interface Arrived {
  readonly fd: number
  readonly connection: number
  readonly time: string
  /** For held connections. */
  look?: Look | undefined
  header?: ReadonlyArray<string>
  sender?: string
}

// For a connection that was closed before it could be examined.
const unseen: Look = { transportPeer: null, syn: null, sources: [] }

/** Prints the connections to a port. Throws an Error whose message is meant for the user. */
export async function watch (
  given: WatchArguments, { libc, openCapture, say, note, terminal, signal }: Surroundings
): Promise<void> {
  if (typeof libc === 'string') throw new Error(`watch cannot examine connections here: ${libc}.`)
  const { options, port, host, count, json } = given
  const tell = (_fields: object, message: string) => { note(message) }
  const log = { warn: tell, error: tell, info: note, isLevelEnabled: () => true }
  const warnings = new Warnings(log as unknown as FastifyBaseLogger)
  const senders = new Senders(libc, warnings.searchFailed)
  const { syn, search } = senders
  const handshakes = new Handshakes()
  const modules = new Modules()
  const arrived = new WeakMap<object, Arrived>()
  // By descriptor, while the connection is examined.
  const looks = new Map<number, Look>()
  let number = 0
  let chosen = ''

  // The plugin's own parts; each connection is also examined before its sources are asked.
  const access = openKernel(senders, { ...options, virtualServer: false }, (message) => { chosen = message })
  const suspicions = new Suspicions(warnings, false, () => false)
  const judge = new Judge(options, warnings.error)
  const headers = options.proxyProtocol && new HeaderPolicy(options.proxyProtocol, judge)
  if (headers !== undefined) {
    chosen = 'fastify-real-ip: source proxy-protocol, from the trusted peers; no other peer is asked for a header'
    headers.look = (socket, bytes) => { (arrived.get(socket) as Arrived).header = describeProxyBytes(bytes) }
  }

  class WatchingGuard extends Guard {
    /** If a header is awaited, no source is asked, and the saved SYN soon belongs to another connection. */
    override readSender (fd: number): Sender {
      const sender = super.readSender(fd)
      if (headers !== undefined) looks.set(fd, lookAt(fd))
      return sender
    }
  }

  const guard = new WatchingGuard({
    ...access,
    resolve (fd, into, sender) {
      if (!looks.has(fd)) looks.set(fd, lookAt(fd))
      return access.resolve(fd, into, sender)
    }
  }, { hasPolicy: judge.hasPolicy, canRefuse: judge.canRefuse, trustsRemote: false }, suspicions)

  const fromSyn = options.toa !== undefined && options.toa.silentOnSyn === undefined
  const asked = chooseSources(libc, syn, {
    toa: options.toa, require: false, sources: kernelSources.filter((name) => name !== 'saved-syn' || fromSyn)
  }, () => {})
  const endpoint = createEndpoint()

  function lookAt (fd: number): Look {
    // Without a policy the plugin does not read the saved SYN.
    const known = judge.hasPolicy ? syn.tcp >= 0 : syn.read(fd, endpoint)
    if (known) decodeSender(syn.bytes, syn.tcp, endpoint)
    const transportPeer = known ? { ...plain(endpoint), by: 'saved-syn' as const } : null
    // With headers the plugin does not ask them.
    const answers = (headers === undefined ? asked : []).map((source): Asked => {
      const reason = source.read(fd, endpoint)
      return { source: source.name, ...(reason === undefined ? plain(endpoint) : { reason }) }
    })
    return {
      transportPeer,
      syn: known
        ? { options: readSegmentOptions(syn.bytes, syn.length), payload: hasPayload(syn.bytes, syn.tcp) }
        : null,
      sources: fromSyn || headers !== undefined ? answers : [...answers, { source: 'saved-syn', reason: 'not-asked' }]
    }
  }

  /** Prints each connection when it is counted: after the decision, before it is handed over. */
  class Printer extends Tally {
    override get hasSubscribers (): boolean { return true }

    override publish (socket: object, realAddress: RealAddress): void {
      const about = arrived.get(socket) as Arrived
      const { fd, connection, time, header } = about
      const look: Look = { ...unseen, ...about.look ?? looks.get(fd) }
      if (about.look === undefined) looks.delete(fd)
      const { address, port, family, source, trust, reason, proxyProtocol, transportPeer: found } = realAddress
      const reset = (socket as Socket).destroyed

      function print (transportPeer: Seen['transportPeer']): void {
        if (transportPeer !== null) about.sender = transportPeer.address
        const ack = transportPeer && handshakes.take(transportPeer)
        const facts = { ...look, transportPeer, ack }
        const seen: Seen = {
          connection,
          time,
          ...facts,
          ...(header && { header }),
          decision: {
            address,
            port,
            family,
            source,
            trust,
            ...(reason && { reason }),
            ...(proxyProtocol && { proxyProtocol }),
            reset
          },
          notes: headers !== undefined
            ? noteOnStranger(trust)
            : noteOn(facts, {
              captureRefused: handshakes.refused,
              asks: options.toa === undefined,
              loaded: modules.look(facts),
              listener: familyOf(server)
            })
        }
        say(json ? JSON.stringify(seen) : drawSeen(seen, terminal))
      }

      if (look.transportPeer !== null) print(look.transportPeer)
      else if (found !== undefined) print({ ...found, by: 'sock_diag' })
      else search.ask(fd, (peer) => { print(peer === undefined ? null : { ...plain(peer), by: 'sock_diag' }) })
    }
  }

  const owners = new Owners()
  owners.shareSenders(() => senders)
  owners.put({ options, judge, guard, suspicions, warnings, tally: new Printer(), headers })
  const arrivals = new Arrivals(owners, new Remembered())

  function accept (socket: object, server: Server, handOver: (socket: object) => void): boolean {
    const fd = fdOf(socket)
    looks.delete(fd)
    const about: Arrived = { fd, connection: ++number, time: new Date().toISOString() }
    arrived.set(socket, about)
    const goesOn = arrivals.accept(socket, server, handOver)
    // When it is printed, its descriptor may belong to another connection.
    about.look = looks.get(fd)
    looks.delete(fd)
    if (number === count) end()
    return goesOn
  }

  const server = createServer((_request, response) => {
    response.writeHead(200, { connection: 'close', 'content-type': 'text/plain' }).end('fastify-real-ip watch\n')
  })
  const tellFirst = (socket: object, text: string) => { note(`Connection ${arrived.get(socket)?.connection}: ${text}`) }
  noteFirstBytes(server, tellFirst, (socket) => arrived.get(socket)?.sender)
  function end (): void {
    server.close()
    setTimeout(() => { server.closeAllConnections() }, GRACE).unref()
  }
  function prepare (): Error | undefined {
    const errno = senders.arm(listeningFdOf(server))
    if (errno !== undefined) {
      return new Error(`the kernel refuses TCP_SAVE_SYN (${errno}), without which no SYN is visible`)
    }
    handshakes.open(openCapture, (server.address() as AddressInfo).port)
    return undefined
  }
  const unfollow = followServers(server, { accept, prepare })
  signal.addEventListener('abort', () => {
    arrivals.close()
    end()
  })
  try {
    const closed = new Promise((resolve) => { server.once('close', resolve) })
    const listening = once(server, 'listening')
    server.listen({ port, host })
    await listening
    const { address, port: opened } = server.address() as AddressInfo
    note(chosen)
    note(`Listening on ${endpointText(address, opened)}; press Ctrl-C to exit.`)
    await closed
  } catch (error) {
    throw new Error(explainListen(error as NodeJS.ErrnoException, port, host))
  } finally {
    unfollow()
    search.close()
    handshakes.close()
  }
}

const noteOnStranger = (trust: RealAddress['trust']): string[] =>
  trust === 'untrusted' ? ['The peer is not in --trusted-peers: its first bytes are not read as a header.'] : []

const familyOf = (server: Server): SocketFamily =>
  (server.address() as AddressInfo).family === 'IPv6' ? 'AF_INET6' : 'AF_INET'

const plain = (endpoint: Endpoint): { address: string, port: number } =>
  ({ address: formatAddress(endpoint), port: endpoint.port })
