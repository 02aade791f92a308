import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo, Server } from 'node:net'
import type { FastifyBaseLogger } from 'fastify'
import { formatAddress } from '../address/address'
import { fdOf, listeningFdOf } from '../node/sockets'
import { Checked, type Evidence } from '../trust/evidence'
import { Guard } from '../trust/guard'
import type { Libc, openCapture } from '../kernel/libc'
import { Observer } from '../http/observer'
import { kernelSources } from '../options/options'
import { createResolve } from '../sources/resolve'
import { hasPayload, tcpHeaderAt } from '../kernel/tcp-header'
import { followServers } from '../node/servers'
import { createEndpoint, type Endpoint } from '../kernel/sockaddr'
import { chooseSources, chooseWitnesses } from '../sources/choose'
import { TransportPeers } from '../kernel/peer-search'
import { Warnings } from '../warnings'
import type { WatchArguments } from './arguments'
import { Handshakes } from './capture'
import { noteFirstBytes } from './first-bytes'
import { Modules, type SocketFamily } from './modules'
import type { Terminal } from './paint'
import { type Asked, drawSeen, endpoint as endpointText, noteOn, type Seen } from './seen'
import { readSegmentOptions } from './segment-options'

// Who is still connected after the last connection was printed has so long to be answered, in milliseconds.
const GRACE = 1000

export interface Surroundings {
  readonly libc: Libc | string
  readonly openCapture: typeof openCapture
  /** Prints a connection. */
  readonly say: (text: string) => void
  /** Prints what is no connection. */
  readonly note: (text: string) => void
  readonly terminal: Terminal
  /** Ends it. */
  readonly signal: AbortSignal
}

/** What is looked at before the plugin decides, for it may reset the connection. */
type Look = Pick<Seen, 'transportPeer' | 'syn' | 'sources'>

/** Prints what the connections to a port bring. Throws an Error whose message is the sentence to print. */
export async function watch (given: WatchArguments, { libc, openCapture, say, note, terminal, signal }: Surroundings): Promise<void> {
  if (typeof libc === 'string') throw new Error(`watch cannot look into connections here: ${libc}.`)
  const { options, port, host, count, json } = given
  const peers = new TransportPeers(libc)
  const handshakes = new Handshakes()
  const modules = new Modules()
  const numbers = new WeakMap<object, number>()
  let arrived = 0
  let look: Look

  // The plugin's own parts, put together as it does, with a look at each connection between them.
  let chosen = ''
  const sources = chooseSources(libc, peers, options, (message) => { chosen = message })
  const tell = (_fields: object, message: string) => { note(message) }
  const log = { warn: tell, error: tell } as unknown as FastifyBaseLogger
  const resolve = createResolve(sources)
  const guard = new Guard(options, {
    peers,
    resolve (fd, into, sender) {
      look = lookAt(fd, sender)
      return resolve(fd, into, sender)
    },
    witnesses: chooseWitnesses(sources, peers, options),
    readVirtualServer: undefined
  }, log, new Warnings(log), false)
  const observer = new Observer(guard, undefined)

  const fromSyn = sources.some(({ name }) => name === 'saved-syn')
  const asked = chooseSources(libc, peers, {
    ...options, sources: kernelSources.filter((name) => name !== 'saved-syn' || fromSyn)
  }, note)
  const endpoint = createEndpoint()

  function lookAt (fd: number, sender: Endpoint | undefined): Look {
    // Without a policy the plugin leaves the saved SYN alone.
    const known = sender !== undefined || peers.readSavedSyn(fd, endpoint)
    const { address, port } = plain(sender ?? endpoint)
    const { bytes, length } = peers.syn
    const answers = asked.map((source): Asked => {
      const reason = source.read(fd, endpoint)
      return { source: source.name, ...(reason === undefined ? plain(endpoint) : { reason }) }
    })
    return {
      transportPeer: known ? { address, port, by: 'saved-syn' } : null,
      syn: known ? { options: readSegmentOptions(bytes, length), payload: hasPayload(bytes, tcpHeaderAt(bytes, length)) } : null,
      sources: fromSyn ? answers : [...answers, { source: 'saved-syn', reason: 'not-asked' }]
    }
  }

  function onConnection (socket: object): void {
    const connection = ++arrived
    numbers.set(socket, connection)
    const time = new Date().toISOString()
    observer.listeners.connection(socket)
    const { transportPeer, syn, sources } = look
    const evidence = observer.ofRequest({ socket }) as Evidence

    function print (transportPeer: Seen['transportPeer']): void {
      const { address, port, family, source, trust, reason } = guard.answer(evidence)
      const ack = transportPeer && handshakes.take(transportPeer)
      const facts = { transportPeer, syn, ack, sources }
      const seen: Seen = {
        connection,
        time,
        ...facts,
        decision: { address, port, family, source, trust, ...(reason && { reason }), reset: evidence instanceof Checked && guard.allows(evidence) === undefined },
        notes: noteOn(facts, {
          captureRefused: handshakes.refused, asks: options.toa === undefined, loaded: modules.look(facts), listener: familyOf(server)
        })
      }
      say(json ? JSON.stringify(seen) : drawSeen(seen, terminal))
    }

    guard.whenKnown(evidence, () => {
      const found = guard.answer(evidence).transportPeer
      if (transportPeer !== null) print(transportPeer)
      else if (found !== undefined) print({ ...found, by: 'sock_diag' })
      else peers.ask(fdOf(socket), (peer, port) => { print(peer === undefined ? null : { address: peer.text, port, by: 'sock_diag' }) })
    })
    if (connection === count) end()
  }

  const server = createServer((_request, response) => {
    response.writeHead(200, { connection: 'close', 'content-type': 'text/plain' }).end('fastify-real-ip watch\n')
  })
  noteFirstBytes(server, (socket, text) => { note(`Connection ${numbers.get(socket)}: ${text}`) })
  function end (): void {
    server.close()
    setTimeout(() => { server.closeAllConnections() }, GRACE).unref()
  }
  const unfollow = followServers(server, { ...observer.listeners, connection: onConnection }, () => {
    const errno = peers.arm(listeningFdOf(server))
    if (errno !== undefined) return new Error(`the kernel refuses TCP_SAVE_SYN (${errno}), without which no SYN can be seen`)
    handshakes.open(openCapture, (server.address() as AddressInfo).port)
    return undefined
  })
  signal.addEventListener('abort', end)
  try {
    const closed = new Promise((resolve) => { server.once('close', resolve) })
    const listening = once(server, 'listening')
    server.listen({ port, host })
    await listening
    const { address, port: opened } = server.address() as AddressInfo
    note(chosen)
    note(`Listening on ${endpointText(address, opened)}; Ctrl-C ends it.`)
    await closed
  } catch (error) {
    throw new Error(explainListen(error as NodeJS.ErrnoException, port, host))
  } finally {
    unfollow()
    peers.close()
    handshakes.close()
  }
}

const familyOf = (server: Server): SocketFamily => (server.address() as AddressInfo).family === 'IPv6' ? 'AF_INET6' : 'AF_INET'

const plain = (endpoint: Endpoint): { address: string, port: number } => ({ address: formatAddress(endpoint), port: endpoint.port })

/** Why a port cannot be listened on, in a sentence. */
export function explainListen ({ code, message }: NodeJS.ErrnoException, port: number, host: string | undefined): string {
  switch (code) {
    case 'EADDRINUSE': return `port ${port} is taken: choose another, or end the program that has it (ss -ltnp shows which).`
    case 'EACCES': return `port ${port} takes a right that this user does not have: choose one from 1024 on, or run it as root.`
    case 'EADDRNOTAVAIL': return `${host} is not an address of this machine.`
    default: return `cannot listen on port ${port}: ${message}.`
  }
}
