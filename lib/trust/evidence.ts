import type { Attempt, KernelSource, RealAddress, Reason, VirtualServer } from '../../types'
import { formatIPv4, formatIPv6 } from '../address/address'
import type { Endpoint } from '../kernel/sockaddr'
import type { PeerAddress } from '../kernel/peer-search'
import type { ClaimColumn, Ruling } from './table'

const none: ReadonlyArray<Attempt> = Object.freeze([])

/**
 * How far the sources were asked: what each said that had nothing, and which one is next. Connections that went the
 * same way share one, so that the reasons are kept without a word per connection.
 */
export class Course {
  readonly attempts: ReadonlyArray<Attempt>
  /** The source whose turn it is; undefined where none is left. */
  readonly source: KernelSource | undefined
  readonly #sources: ReadonlyArray<KernelSource>
  readonly #next = new Map<string, Course>()
  // The one that most connections take.
  #reason: string | undefined
  #last: Course | undefined

  constructor (sources: ReadonlyArray<KernelSource>, attempts: ReadonlyArray<Attempt> = none) {
    this.#sources = sources
    this.attempts = attempts
    this.source = sources[attempts.length]
  }

  /** The course once `source` has said that it has nothing. */
  after (reason: string): Course {
    return reason === this.#reason ? this.#last as Course : this.#other(reason)
  }

  #other (reason: string): Course {
    let next = this.#next.get(reason)
    if (next === undefined) {
      const attempt = Object.freeze({ source: this.source as KernelSource, reason })
      next = new Course(this.#sources, Object.freeze([...this.attempts, attempt]))
      this.#next.set(reason, next)
    }
    this.#reason = reason
    return this.#last = next
  }
}

/**
 * What a kernel source said of a connection. Kept as numbers; text and object are made when first asked for. A class
 * for each family, and no more to either than it needs: one is made for every connection.
 */
export type Claim = IPv4Claim | IPv6Claim

class IPv4Claim {
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

  copyTo (into: Endpoint): void {
    into.family = 'IPv4'
    into.port = this.port
    into.w0 = into.w1 = into.w2 = 0
    into.w3 = this.w3
  }

  get address (): string { return addressOf(this.answer ??= formatIPv4(this.w3)) }
  get realAddress (): RealAddress { return answerOf(this) }
}

class IPv6Claim {
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

  copyTo (into: Endpoint): void {
    into.family = 'IPv6'
    into.port = this.port
    into.w0 = this.w0
    into.w1 = this.w1
    into.w2 = this.w2
    into.w3 = this.w3
  }

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

function unchecked (claim: Claim, address: string): RealAddress {
  return answer({
    address,
    port: claim.port === 0 ? undefined : claim.port,
    family: claim.family,
    // Where none is left, the claim is the transport peer's own: there is a policy then, which says so.
    source: claim.course.source as KernelSource,
    trust: 'unchecked',
    transportPeer: undefined,
    attempts: claim.course.attempts
  })
}

export function claimOf (endpoint: Endpoint, course: Course): Claim {
  return endpoint.family === 'IPv4' ? new IPv4Claim(course, endpoint) : new IPv6Claim(course, endpoint)
}

export const asClaim = (found: Claim | Fallback): Claim | undefined => found.course === undefined ? undefined : found

/** What is known without a kernel source: the socket's own remote address, or nothing. */
export interface Fallback {
  readonly course: undefined
  readonly address: string | undefined
  readonly realAddress: RealAddress
}

export function fallback (
  address: string | undefined, port: unknown, reason: Reason, attempts: ReadonlyArray<Attempt> = none
): Fallback {
  const known = address !== undefined
  return {
    course: undefined,
    address,
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

const familyOf = (address: string): 'IPv4' | 'IPv6' => address.includes(':') ? 'IPv6' : 'IPv4'

/** The one place that makes answers, so that all have one shape. */
export function answer (fields: RealAddress): RealAddress {
  return Object.freeze(fields)
}

const PORT = 0xffff
const PENDING = 0x10000
const REFUSED = 0x20000
const AMBIGUOUS = 0x40000

/** A claim, or what stands in its place, with the transport peer that it is checked against. */
export class Checked {
  readonly claim: Claim | Fallback
  /** What is claimed, as the transport peer shows it. */
  column: ClaimColumn
  peer: PeerAddress | undefined = undefined
  /** The policy that judged, and what it found: another policy calls for another judgement. */
  policy: object | undefined = undefined
  ruling: Ruling | undefined = undefined
  realAddress: RealAddress | undefined = undefined
  /** The address that `admit` was last asked about; null: none yet. */
  asked: string | undefined | null = null
  /** Of few servers: the others' connections have no word for it. */
  virtualServer?: VirtualServer | undefined
  // The transport peer's port, and flags.
  #state = 0

  constructor (claim: Claim | Fallback, column: ClaimColumn) {
    this.claim = claim
    this.column = column
  }

  /** Only what no policy judged is the same for all requests. */
  readonly address?: undefined

  get course (): Course | undefined { return this.claim.course }

  get peerPort (): number { return this.#state & PORT }
  set peerPort (port: number) { this.#state = this.#state & ~PORT | port }

  /** Whether the transport peer is still being looked for. */
  get pending (): boolean { return (this.#state & PENDING) !== 0 }
  set pending (value: boolean) { this.#set(PENDING, value) }

  /** Whether the sources contradict each other. */
  get ambiguous (): boolean { return (this.#state & AMBIGUOUS) !== 0 }
  set ambiguous (value: boolean) { this.#set(AMBIGUOUS, value) }

  /** Whether the connection is to be closed. */
  get refused (): boolean { return (this.#state & REFUSED) !== 0 }
  set refused (value: boolean) { this.#set(REFUSED, value) }

  judged (policy: object, ruling: Ruling): Ruling {
    this.policy = policy
    this.realAddress = undefined
    return this.ruling = ruling
  }

  #set (flag: number, value: boolean): void {
    this.#state = value ? this.#state | flag : this.#state & ~flag
  }
}

export type Evidence = Claim | Fallback | Checked
