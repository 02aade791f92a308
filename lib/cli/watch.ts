import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo, Server } from 'node:net'
import type { FastifyBaseLogger } from 'fastify'
import { Arrivals } from '../http/arrivals'
import { Owners } from '../http/owners'
import { HeaderPolicy } from '../http/proxy-headers'
import type { Libc, openCapture } from '../kernel/libc'
import { Remembered } from '../node/remembered'
import { followServers } from '../node/servers'
import { fdOf, listeningFdOf } from '../node/sockets'
import { openKernel, Senders } from '../sources/choose'
import { Judge } from '../trust/judge'
import { Suspicions } from '../trust/suspicions'
import { Warnings } from '../warnings'
import type { WatchArguments } from './arguments'
import { Handshakes } from './capture'
import { explainListen } from './explain-listen'
import { noteFirstBytes } from './first-bytes'
import { Looks, WatchingGuard } from './looks'
import type { SocketFamily } from './modules'
import type { Terminal } from './paint'
import { type Arrived, Printer } from './printer'
import { describeProxyBytes } from './proxy'
import { drawSeen, endpoint } from './seen'
import type { Seen } from './sighting'

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
  const { search } = senders
  const handshakes = new Handshakes()
  const looks = new Looks(senders, options)
  const arrived = new WeakMap<object, Arrived>()
  const server = createServer((_request, response) => {
    response.writeHead(200, { connection: 'close', 'content-type': 'text/plain' }).end('fastify-real-ip watch\n')
  })
  // After the last connection of --count the server has no address.
  let listener: SocketFamily = 'AF_INET'
  let number = 0
  let chosen = ''

  // The plugin's own parts; each connection is also looked at before its sources are asked.
  const access = openKernel(senders, { ...options, virtualServer: false }, (message) => { chosen = message })
  const suspicions = new Suspicions(warnings, false, () => false)
  const judge = new Judge(options, warnings.error)
  const { hasPolicy, canRefuse } = judge
  const guard = new WatchingGuard(access, { hasPolicy, canRefuse, trustsRemote: false }, suspicions, looks)
  const headers = options.proxyProtocol && new HeaderPolicy(options.proxyProtocol, judge)
  if (headers !== undefined) {
    chosen = 'fastify-real-ip: source proxy-protocol, from the trusted peers; no other peer is asked for a header'
    headers.look = (socket, bytes) => { (arrived.get(socket) as Arrived).header = describeProxyBytes(bytes) }
  }
  const print = (seen: Seen) => { say(json ? JSON.stringify(seen) : drawSeen(seen, terminal)) }
  const tally = new Printer({ options, search, handshakes, looks, arrived, listener: () => listener, print })
  const owners = new Owners()
  owners.shareSenders(() => senders)
  owners.put({ options, judge, guard, suspicions, warnings, tally, headers })
  const arrivals = new Arrivals(owners, new Remembered())

  function accept (socket: object, server: Server, handOver: (socket: object) => void): boolean {
    const fd = fdOf(socket)
    // A look at an earlier connection with this descriptor.
    looks.take(fd)
    const about: Arrived = { fd, connection: ++number, time: new Date().toISOString() }
    arrived.set(socket, about)
    const goesOn = arrivals.accept(socket, server, handOver)
    // When it is printed, its descriptor may belong to another connection.
    about.look = looks.take(fd)
    if (number === count) end()
    return goesOn
  }

  function prepare (): Error | undefined {
    const errno = senders.arm(listeningFdOf(server))
    if (errno !== undefined) {
      return new Error(`the kernel refuses TCP_SAVE_SYN (${errno}), without which no SYN is visible`)
    }
    const { family, port } = server.address() as AddressInfo
    listener = family === 'IPv6' ? 'AF_INET6' : 'AF_INET'
    handshakes.open(openCapture, port)
    return undefined
  }

  function end (): void {
    server.close()
    setTimeout(() => { server.closeAllConnections() }, GRACE).unref()
  }

  const tellFirst = (socket: object, text: string) => { note(`Connection ${arrived.get(socket)?.connection}: ${text}`) }
  noteFirstBytes(server, tellFirst, (socket) => arrived.get(socket)?.sender)
  const unfollow = followServers(server, { accept, prepare })
  signal.addEventListener('abort', () => {
    arrivals.close()
    end()
  })
  try {
    await serve(server, port, host, (address) => {
      note(chosen)
      note(`Listening on ${address}; press Ctrl-C to exit.`)
    })
  } finally {
    unfollow()
    search.close()
    handshakes.close()
  }
}

/** Listens until the server is closed. Throws an Error whose message is meant for the user. */
async function serve (
  server: Server, port: number, host: string | undefined, onListening: (address: string) => void
): Promise<void> {
  try {
    const closed = new Promise((resolve) => { server.once('close', resolve) })
    const listening = once(server, 'listening')
    server.listen({ port, host })
    await listening
    const { address, port: opened } = server.address() as AddressInfo
    onListening(endpoint(address, opened))
    await closed
  } catch (error) {
    throw new Error(explainListen(error as NodeJS.ErrnoException, port, host))
  }
}
