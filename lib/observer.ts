import { Duplex } from 'node:stream'
import type { RealAddress } from '../types'
import { acceptedSocket, fdOf, readPeer, socketOfSession } from './connection'
import { Course, type Evidence } from './evidence'
import type { Resolve } from './resolve'
import type { ServerListeners } from './servers'

/** What leads from one object of a connection to another; all are optional, for anything may be asked about. */
interface Related {
  readonly raw?: unknown
  readonly stream?: unknown
  readonly session?: unknown
  readonly socket?: unknown
  readonly destroyed?: unknown
}

const isObject = (value: unknown): value is Related => typeof value === 'object' && value !== null

/**
 * Reads each connection once, when its server hands it over, and remembers what was found for as long as somebody
 * still holds the connection.
 */
export class Observer {
  // Keyed by accepted sockets, and on HTTP/2 by sessions and streams too: a dead session no longer leads to its
  // socket, nor a dead stream to its session. Never by fd: the kernel gives it to the next connection.
  readonly #evidence = new WeakMap<object, Evidence>()
  readonly #resolve: Resolve | undefined

  /** Without `resolve` the system calls cannot be made: connections have their remote address alone. */
  constructor (resolve: Resolve | undefined) {
    this.#resolve = resolve
  }

  readonly listeners: ServerListeners = {
    connection: (socket) => {
      this.#evidence.set(acceptedSocket(socket) as object, this.#read(socket))
    },
    session: (session) => {
      this.#inherit(session, socketOfSession(session))
    },
    stream: (stream) => {
      this.#inherit(stream, stream.session)
    }
  }

  #read (socket: Related): Evidence {
    if (socket.destroyed === true) return { realAddress: readPeer(socket, 'closed') }
    if (this.#resolve === undefined) return { realAddress: readPeer(socket, 'native-unavailable') }
    const fd = fdOf(socket)
    if (fd < 0) return { realAddress: readPeer(socket, 'no-fd') }
    const found = this.#resolve(fd)
    return found instanceof Course ? { realAddress: readPeer(socket, 'no-answer', found.attempts) } : found
  }

  #inherit (key: object, from: object | undefined): void {
    const evidence = from && this.#evidence.get(from)
    if (evidence !== undefined) this.#evidence.set(key, evidence)
  }

  /** The address behind a raw request of this server: the way of every request, so the shortest. */
  ofRequest (raw: Related): RealAddress {
    const key: unknown = isObject(raw.stream) ? raw.stream : acceptedSocket(raw.socket)
    return this.#evidence.get(key as object)?.realAddress ?? this.lookup(raw)
  }

  /** The address behind any object of a connection. Never throws. */
  lookup (connection: unknown): RealAddress {
    let at = connection
    try {
      // A Fastify request leads to the raw one, that to its stream or socket, a stream to its session, that to a socket.
      for (let hops = 0; isObject(at) && hops < 5; hops++) {
        const evidence = this.#evidence.get(acceptedSocket(at.valueOf()) as object)
        if (evidence !== undefined) return evidence.realAddress
        const next = at.raw ?? at.stream ?? at.session ?? at.socket
        if (!isObject(next)) break
        at = next
      }
    } catch {
      // The proxy of a dead HTTP/2 session.
    }
    // inject() has a mock in the socket's place, which is no stream.
    return readPeer(at, at instanceof Duplex ? 'unobserved' : 'injected')
  }
}
