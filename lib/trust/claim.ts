import type { Attempt, RealAddress, Reason } from '../../types'
import { type Address, canonicalAddress, formatAddress } from '../address/address'
import { copyEndpoint, createEndpoint, type Endpoint } from '../kernel/sockaddr'
import { remoteOf } from '../node/sockets'
import type { ClaimSource, Course } from '../sources/course'

/** What a source says of a connection. Stored as numbers: every connection has one, and most are never formatted. */
export class Claim implements Address {
  readonly course: Course
  readonly family: 'IPv4' | 'IPv6'
  readonly port: number
  readonly w0: number
  readonly w1: number
  readonly w2: number
  readonly w3: number
  #answer: RealAddress | undefined

  constructor (endpoint: Endpoint, course: Course) {
    this.course = course
    this.family = endpoint.family
    this.port = endpoint.port
    this.w0 = endpoint.w0
    this.w1 = endpoint.w1
    this.w2 = endpoint.w2
    this.w3 = endpoint.w3
  }

  get address (): string { return this.realAddress.address as string }

  /** The answer without a policy. */
  get realAddress (): RealAddress {
    return this.#answer ??= answer({
      address: formatAddress(this),
      port: this.port === 0 ? undefined : this.port,
      family: this.family,
      // Without a source, this is the transport peer: there is a policy, which gives the reason.
      source: this.course.source as ClaimSource,
      trust: 'unchecked',
      transportPeer: undefined,
      attempts: this.course.attempts
    })
  }
}

/** What is known without a source: the remote address that Node.js reports, or nothing. */
export class Fallback {
  readonly course = undefined
  readonly address: string | undefined
  readonly realAddress: RealAddress

  constructor (address: string | undefined, port: unknown, reason: Reason, attempts: ReadonlyArray<Attempt> = []) {
    const isKnown = address !== undefined
    this.address = address
    this.realAddress = answer({
      address,
      port: isKnown && isPort(port) ? port : undefined,
      family: isKnown ? (address.includes(':') ? 'IPv6' : 'IPv4') : undefined,
      source: isKnown ? 'peer' : 'none',
      reason: isKnown || !meansAddress.has(reason) ? reason : 'no-address',
      trust: 'unchecked',
      transportPeer: undefined,
      attempts
    })
  }
}

// Why the address comes from Node.js; omitted if there is no address.
const meansAddress = new Set<Reason>(['native-unavailable', 'no-fd', 'unobserved', 'injected'])

const isPort = (port: unknown): port is number => Number.isInteger(port) && port as number > 0 && port as number < 65536

/** The remote address that Node.js reports now. Never throws. */
export function readFallback (socket: unknown, reason: Reason, attempts?: ReadonlyArray<Attempt>): Fallback {
  const { address, port } = remoteOf(socket)
  return new Fallback(canonicalAddress(address), port, reason, attempts)
}

/** Creates all answers, so that they have one shape. */
export function answer (fields: RealAddress): RealAddress {
  return Object.freeze(fields)
}

/** A copy of an endpoint that is reused for other connections. */
export function keepEndpoint (endpoint: Endpoint): Endpoint {
  const copy = createEndpoint()
  copyEndpoint(endpoint, copy)
  return copy
}
