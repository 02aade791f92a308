import { Duplex } from 'node:stream'
import type { RealAddress } from '../../types'
import { acceptedSocket, fdOf, readPeer, reset, socketOfSession } from '../node/sockets'
import { Checked, type Evidence } from '../trust/evidence'
import { compileHeader, type ReadHops, walk } from './forwarded'
import type { Guard } from '../trust/guard'
import type { ForwardedOptions } from '../options/options'
import { createPrivateMap } from '../node/private-map'
import { compileRanges, type Ranges } from '../address/ranges'
import type { ServerListeners } from '../node/servers'
import type { Ruling } from '../trust/table'

/** What leads from one object of a connection to another; all are optional, for anything may be asked about. */
interface Related {
  readonly raw?: unknown
  readonly stream?: unknown
  readonly session?: unknown
  readonly socket?: unknown
  readonly rawHeaders?: ReadonlyArray<string>
}

const isObject = (value: unknown): value is Related => typeof value === 'object' && value !== null

/**
 * Reads each connection once, when its server hands it over, and remembers what was found for as long as somebody
 * still holds the connection.
 */
export class Observer {
  // Keyed by accepted sockets, and on HTTP/2 by sessions and streams too: a dead session no longer leads to its
  // socket, nor a dead stream to its session. Never by fd: the kernel gives it to the next connection.
  readonly #evidence = createPrivateMap<Evidence>()
  readonly #guard: Guard
  readonly #forwarded: { readonly trust: Ranges, readonly readHops: ReadHops } | undefined

  constructor (guard: Guard, forwarded: ForwardedOptions | undefined) {
    this.#guard = guard
    this.#forwarded = forwarded && {
      trust: compileRanges(forwarded.trust, 'forwarded.trust'), readHops: compileHeader(forwarded.header)
    }
  }

  readonly listeners: ServerListeners = {
    connection: (socket) => {
      const key = acceptedSocket(socket) as object
      // A saved SYN can be read once: what was found then stands.
      if (this.#guard.hasPolicy && this.#evidence.get(key) !== undefined) return
      const evidence = this.#guard.examine(socket, fdOf(socket))
      this.#evidence.set(key, evidence)
      this.#guard.announce(socket, evidence)
    },
    session: (session) => {
      this.#inherit(session, socketOfSession(session))
    },
    stream: (stream) => {
      this.#inherit(stream, stream.session)
    }
  }

  #inherit (key: object, from: object | undefined): void {
    const evidence = from && this.#evidence.get(from)
    if (evidence !== undefined) this.#evidence.set(key, evidence)
  }

  /** What was found for the connection of a raw request: the way of every request, so the shortest. */
  ofRequest (raw: Related): Evidence | undefined {
    const key: unknown = isObject(raw.stream) ? raw.stream : acceptedSocket(raw.socket)
    return this.#evidence.get(key)
  }

  /** The answer for a request, its forwarding header included, by the policy of the moment or what that once was. */
  answer (raw: Related, evidence: Evidence, ruling?: Ruling): RealAddress {
    const base = this.#guard.answer(evidence, ruling)
    const forwarded = this.#forwarded
    if (forwarded === undefined || raw.rawHeaders === undefined || !(evidence instanceof Checked)) return base
    if (!(ruling ?? this.#guard.judge(evidence)).forwards) return base
    return walk(base, forwarded.trust, forwarded.readHops, raw.rawHeaders)
  }

  /** The answer for any object of a connection. Never throws. `kept` gives the answer that a request has begun with. */
  lookup (connection: unknown, kept?: (request: object) => RealAddress | undefined): RealAddress {
    let at = connection
    let request: Related = {}
    try {
      // A Fastify request leads to the raw one, that to its stream or socket, a stream to its session, that to a socket.
      for (let hops = 0; isObject(at) && hops < 5; hops++) {
        const answer = kept?.(at)
        if (answer !== undefined) return answer
        if (at.rawHeaders !== undefined) request = at
        const evidence = this.#evidence.get(acceptedSocket(at.valueOf()))
        if (evidence !== undefined) return this.answer(request, evidence)
        const next = at.raw ?? at.stream ?? at.session ?? at.socket
        if (!isObject(next)) break
        at = next
      }
    } catch {
      // The proxy of a dead HTTP/2 session, which cannot even be asked what it is.
      at = undefined
    }
    // inject() has a mock in the socket's place, which is no stream.
    const injected = !(at instanceof Duplex)
    const evidence = this.#guard.examineUnobserved(readPeer(at, injected ? 'injected' : 'unobserved'), injected)
    try {
      return this.answer(request, evidence)
    } catch {
      // Headers that are none.
      return this.answer({}, evidence)
    }
  }

  /** Closes the connection of a request: the HTTP/2 session too, which would outlive its socket's reset. */
  close (raw: Related): void {
    if (isObject(raw.stream) && isObject(raw.stream.session)) reset(raw.stream.session)
    else if (isObject(raw.socket)) reset(acceptedSocket(raw.socket) as object)
  }
}
