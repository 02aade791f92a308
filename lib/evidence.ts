import type { Attempt, KernelSource, RealAddress, Reason, VirtualServer } from '../types'
import { formatIPv4, formatIPv6 } from './address'
import type { Endpoint } from './sockaddr'
import type { PeerAddress } from './transport-peer'
import type { Cell } from './trust'

const none: ReadonlyArray<Attempt> = Object.freeze([])

/**
 * How far the sources were asked: what each said that had nothing, and which one is next. Connections that went the
 * same way share one, so that the reasons are kept without a word per connection.
 */
export class Course {
  readonly attempts: ReadonlyArray<Attempt>
  /** The source whose turn it is. */
  readonly source: KernelSource
  readonly #sources: ReadonlyArray<KernelSource>
  // Few, and mostly the first.
  readonly #next: Course[] = []

  constructor (sources: ReadonlyArray<KernelSource>, attempts: ReadonlyArray<Attempt> = none) {
    this.#sources = sources
    this.attempts = attempts
    this.source = sources[attempts.length] as KernelSource
  }

  /** The course once `source` has said that it has nothing. */
  after (reason: string): Course {
    const { length } = this.attempts
    for (const next of this.#next) {
      if (next.attempts[length]?.reason === reason) return next
    }
    const attempt = Object.freeze({ source: this.source, reason })
    const next = new Course(this.#sources, Object.freeze([...this.attempts, attempt]))
    this.#next.push(next)
    return next
  }
}

/**
 * What a kernel source said of a connection. Kept as numbers; text and object are made when first asked for. A class
 * for each family, and no more to either than it needs: one is made for every connection.
 */
export type Claim = IPv4Claim | IPv6Claim

class IPv4Claim implements Endpoint {
  readonly course: Course
  readonly port: number
  readonly w3: number
  answer: string | RealAddress | undefined

  constructor (course: Course, endpoint: Endpoint) {
    this.course = course
    this.port = endpoint.port
    this.w3 = endpoint.w3
    this.answer = undefined
  }

  get family (): 'IPv4' { return 'IPv4' }
  get w0 (): number { return 0 }
  get w1 (): number { return 0 }
  get w2 (): number { return 0 }

  get address (): string { return addressOf(this.answer ??= formatIPv4(this.w3)) }
  get realAddress (): RealAddress { return answerOf(this) }
}

class IPv6Claim implements Endpoint {
  readonly course: Course
  readonly port: number
  readonly w0: number
  readonly w1: number
  readonly w2: number
  readonly w3: number
  answer: string | RealAddress | undefined

  constructor (course: Course, endpoint: Endpoint) {
    this.course = course
    this.port = endpoint.port
    this.w0 = endpoint.w0
    this.w1 = endpoint.w1
    this.w2 = endpoint.w2
    this.w3 = endpoint.w3
    this.answer = undefined
  }

  get family (): 'IPv6' { return 'IPv6' }

  get address (): string { return addressOf(this.answer ??= formatIPv6(this.w0, this.w1, this.w2, this.w3)) }
  get realAddress (): RealAddress { return answerOf(this) }
}

function addressOf (answer: string | RealAddress): string {
  return typeof answer === 'string' ? answer : answer.address as string
}

/** The answer where nobody asked for a policy. */
function answerOf (claim: Claim): RealAddress {
  const { address } = claim
  return typeof claim.answer === 'object' ? claim.answer : claim.answer = unchecked(claim, address)
}

export function isClaim (evidence: Evidence): evidence is Claim {
  return evidence instanceof IPv4Claim || evidence instanceof IPv6Claim
}

function unchecked (claim: Claim, address: string): RealAddress {
  return answer({
    address,
    port: claim.port === 0 ? undefined : claim.port,
    family: claim.family,
    source: claim.course.source,
    trust: 'unchecked',
    transportPeer: undefined,
    attempts: claim.course.attempts
  })
}

export function claimOf (endpoint: Endpoint, course: Course): Claim {
  return endpoint.family === 'IPv4' ? new IPv4Claim(course, endpoint) : new IPv6Claim(course, endpoint)
}

export function asClaim (found: Claim | Fallback): Claim | undefined {
  return isClaim(found) ? found : undefined
}

/** What is known without a kernel source: the socket's own remote address, or nothing. */
export interface Fallback {
  readonly realAddress: RealAddress
}

export function fallback (
  address: string | undefined, port: unknown, reason: Reason, attempts: ReadonlyArray<Attempt> = none
): Fallback {
  const known = address !== undefined
  return {
    realAddress: answer({
      address,
      port: known && isPort(port) ? port : undefined,
      family: known ? familyOf(address) : undefined,
      source: known ? 'peer' : 'none',
      reason: known || reason === 'closed' || reason === 'no-answer' ? reason : 'no-address',
      trust: 'unchecked',
      transportPeer: undefined,
      attempts
    })
  }
}

const isPort = (port: unknown): port is number => Number.isInteger(port) && port as number > 0 && port as number < 65536

export const familyOf = (address: string): 'IPv4' | 'IPv6' => address.includes(':') ? 'IPv6' : 'IPv4'

/** The one place that makes answers, so that all have one shape. */
export function answer (fields: RealAddress): RealAddress {
  return Object.freeze(fields)
}

const PENDING = 1
const REFUSED = 2
const AMBIGUOUS = 4
const DECIDED = 8

/** A claim, or what stands in its place, with the transport peer that it is checked against. */
export class Checked {
  readonly claim: Claim | Fallback
  peer: PeerAddress | undefined = undefined
  peerPort = 0
  /** The policy that judged, and what it found: another policy calls for another judgement. */
  policy: object | undefined = undefined
  cell: Cell | undefined = undefined
  realAddress: RealAddress | undefined = undefined
  /** The address that `admit` was last asked about; null: none yet. */
  asked: string | undefined | null = null
  virtualServer: VirtualServer | undefined = undefined
  #flags = 0

  constructor (claim: Claim | Fallback) {
    this.claim = claim
  }

  /** Whether the transport peer is still being looked for. */
  get pending (): boolean { return (this.#flags & PENDING) !== 0 }
  set pending (value: boolean) { this.#set(PENDING, value) }

  /** Whether the connection is to be closed. */
  get refused (): boolean { return (this.#flags & REFUSED) !== 0 }
  set refused (value: boolean) { this.#set(REFUSED, value) }

  /** Whether that was decided under the policy that judged. */
  get decided (): boolean { return (this.#flags & DECIDED) !== 0 }
  set decided (value: boolean) { this.#set(DECIDED, value) }

  /** Whether the sources contradict each other. */
  get ambiguous (): boolean { return (this.#flags & AMBIGUOUS) !== 0 }
  set ambiguous (value: boolean) { this.#set(AMBIGUOUS, value) }

  #set (flag: number, value: boolean): void {
    this.#flags = value ? this.#flags | flag : this.#flags & ~flag
  }
}

export type Evidence = Claim | Fallback | Checked

/** Whether it is still being looked for who sent the connection's packets. */
export const isPending = (evidence: Evidence): boolean => evidence instanceof Checked && evidence.pending
