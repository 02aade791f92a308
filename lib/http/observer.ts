import { Http2ServerRequest, Http2ServerResponse } from 'node:http2'
import type { RealAddress } from '../../types'
import type { Address } from '../address/address'
import { compileRanges, type Ranges } from '../address/ranges'
import type { Remembered } from '../node/remembered'
import type { PeerList } from '../options/trust'
import { acceptedSocket, reset } from '../node/sockets'
import { type Evidence, isChecked } from '../trust/checked'
import { isLoopback } from '../trust/plausible'
import type { Ruling } from '../trust/table'
import { compileHeader, readNothing, type ReadHops, walk } from './forwarded'
import { isCutShort } from './header-lines'
import type { Owner } from './owners'
import { kClient, type Staged } from './staged'

/** Properties that lead from one object of a connection to another. All optional: lookup() accepts any value. */
export interface Related {
  readonly raw?: unknown
  readonly stream?: unknown
  readonly session?: unknown
  readonly socket?: unknown
  readonly rawHeaders?: ReadonlyArray<string>
  readonly _lightMyRequest?: unknown
}

const isObject = (value: unknown): value is Related => typeof value === 'object' && value !== null

// From a Fastify request through raw request, stream and session to a socket.
const HOPS = 5

/** Answers questions about connections and requests from what is remembered of them. */
export class Observer {
  readonly #owner: Owner
  readonly #remembered: Remembered<Evidence>
  /** Reads the forwarding header; `undefined` if none counts. */
  readonly readHops: ReadHops | undefined
  #proxies: { readonly ranges: Ranges, readonly unix: boolean } | undefined

  constructor (owner: Owner, remembered: Remembered<Evidence>) {
    const { forwarded, overrideRequest } = owner.options
    this.#owner = owner
    this.#remembered = remembered
    if (forwarded === undefined) return
    this.readHops = compileHeader(forwarded.header, overrideRequest)
    this.setForwardedTrust(forwarded.trust)
  }

  /** Replaces the trusted proxies, for requests answered from now on. */
  setForwardedTrust ({ addresses, unix }: PeerList): void {
    this.#proxies = { ranges: compileRanges(addresses, 'forwarded.trust'), unix }
  }

  isProxy (address: Address): boolean {
    return this.#proxies?.ranges.includes(address) === true
  }

  /** What is known of a raw request's connection. */
  ofRequest (raw: Related): Evidence | undefined {
    return this.#recall(streamOf(raw) ?? acceptedSocket(raw.socket))
  }

  #recall (key: unknown): Evidence | undefined {
    const found = this.#remembered.of(key)
    return found && this.#owner.judge.adopt(found)
  }

  /** The same; if no server of the plugin accepted the connection, examines and remembers it. */
  examineRequest (raw: Related): Evidence {
    const found = this.ofRequest(raw)
    if (found !== undefined) return found
    const isInjected = raw._lightMyRequest !== undefined
    const { guard, judge, suspicions } = this.#owner
    const evidence = guard.examineUnobserved(raw.socket, isInjected, isInjected ? (raw as Staged)[kClient] : undefined)
    if (!isInjected && judge.hasPolicy) suspicions.unobserved()
    const key = streamOf(raw) ?? acceptedSocket(raw.socket)
    if (isObject(key)) this.#remembered.set(key, evidence)
    return evidence
  }

  /** The answer for a request, with its forwarding header, by the current policy or an earlier ruling. */
  answer (raw: Related, evidence: Evidence, ruling?: Ruling): RealAddress {
    const { judge } = this.#owner
    const base = judge.answer(evidence, ruling)
    const proxies = this.#proxies
    const { readHops } = this
    if (proxies === undefined || readHops === undefined) return base
    if (raw.rawHeaders === undefined || !isChecked(evidence)) return base
    if (!(ruling ?? judge.rule(evidence)).forwards) return base
    // The default address of inject() is not a proxy's.
    if (evidence.isInjected && evidence.peer !== undefined && isLoopback(evidence.peer)) return base
    const unix = proxies.unix && evidence.isUnix && base.address === undefined
    // Node.js limits HTTP/2 header lists by resetting the stream.
    const isCut = streamOf(raw) === undefined && isCutShort(raw.rawHeaders, raw.socket)
    return walk(base, proxies.ranges, isCut ? readNothing : readHops, raw.rawHeaders, unix)
  }

  /** The answer for any object of a connection. Never throws. `kept` returns the answer that a request began with. */
  lookup (connection: unknown, kept?: (request: object) => RealAddress | undefined): RealAddress {
    const seen: Seen = { request: {}, last: connection, isInjected: false }
    try {
      const answer = this.#find(connection, HOPS, seen, kept)
      if (answer !== undefined) return answer
      if (seen.isInjected) return this.answer(seen.request, this.examineRequest(seen.request))
    } catch {
      // The proxy of a destroyed HTTP/2 session throws on any access.
      seen.last = undefined
    }
    const evidence = this.#owner.guard.examineUnobserved(seen.last, false)
    try {
      return this.answer(seen.request, evidence)
    } catch {
      // Malformed headers.
      return this.answer({}, evidence)
    }
  }

  #find (
    at: unknown, hops: number, seen: Seen, kept?: (request: object) => RealAddress | undefined
  ): RealAddress | undefined {
    if (!isObject(at)) return undefined
    const answer = kept?.(at)
    if (answer !== undefined) return answer
    if (at.rawHeaders !== undefined) seen.request = at
    if (at._lightMyRequest !== undefined) seen.isInjected = true
    seen.last = at
    const evidence = this.#recall(acceptedSocket(at.valueOf()))
    if (evidence !== undefined) return this.answer(seen.request, evidence)
    if (hops === 0) return undefined
    return this.#find(nextOf(at), hops - 1, seen, kept)
  }

  /** Closes the connection of a refused request, and the HTTP/2 session, which would outlive its socket. */
  close (raw: Related): void {
    if (raw._lightMyRequest !== undefined) return reset(raw)
    const session = streamOf(raw)?.session
    if (isObject(session)) reset(session)
    else if (isObject(raw.socket)) reset(acceptedSocket(raw.socket) as object)
  }
}

/** The stream of an HTTP/2 request. Some libraries give HTTP/1 requests a `stream` or a `session`. */
function streamOf (raw: Related): Related | undefined {
  return raw.stream !== undefined && raw instanceof Http2ServerRequest ? raw.stream as Related : undefined
}

/**
 * The next object towards the connection: from a Fastify request to the raw one, to its stream or socket, and so on.
 */
function nextOf (at: Related): unknown {
  if (at.raw !== undefined) return at.raw
  if (at instanceof Http2ServerRequest || at instanceof Http2ServerResponse) return at.stream
  const isStream = at.rawHeaders === undefined && isObject(at.session)
  return isStream ? at.session : at.socket
}

interface Seen {
  request: Related
  last: unknown
  isInjected: boolean
}
