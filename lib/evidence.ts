import type { Attempt, KernelSource, RealAddress, Reason } from '../types'
import { formatIPv4, formatIPv6 } from './address'
import type { Endpoint } from './sockaddr'

const none: ReadonlyArray<Attempt> = Object.freeze([])

/**
 * How far the sources were asked: what each said that had nothing, and which one is next. Connections that went the
 * same way share one, so that the reasons are kept without a word per connection.
 */
export class Course {
  readonly #sources: ReadonlyArray<KernelSource>
  readonly #next = new Map<string, Course>()

  constructor (sources: ReadonlyArray<KernelSource>, readonly attempts: ReadonlyArray<Attempt> = none) {
    this.#sources = sources
  }

  /** The source whose turn it is. */
  get source (): KernelSource {
    return this.#sources[this.attempts.length] as KernelSource
  }

  /** The course once `source` has said that it has nothing. */
  after (reason: string): Course {
    let next = this.#next.get(reason)
    if (next === undefined) {
      const attempt = Object.freeze({ source: this.source, reason })
      next = new Course(this.#sources, Object.freeze([...this.attempts, attempt]))
      this.#next.set(reason, next)
    }
    return next
  }
}

/** What is remembered of a connection. */
export interface Evidence {
  readonly realAddress: RealAddress
}

/** An IPv4 answer of a kernel source, kept as numbers; text and object are made when first asked for. */
export class IPv4Evidence implements Evidence {
  readonly #course: Course
  readonly #port: number
  readonly #word: number
  #realAddress: RealAddress | undefined = undefined

  constructor (course: Course, endpoint: Endpoint) {
    this.#course = course
    this.#port = endpoint.port
    this.#word = endpoint.w3
  }

  get realAddress (): RealAddress {
    return this.#realAddress ??= kernelAnswer(this.#course, formatIPv4(this.#word), this.#port, 'IPv4')
  }
}

/** The same for an IPv6 answer. */
export class IPv6Evidence implements Evidence {
  readonly #course: Course
  readonly #port: number
  readonly #w0: number
  readonly #w1: number
  readonly #w2: number
  readonly #w3: number
  #realAddress: RealAddress | undefined = undefined

  constructor (course: Course, endpoint: Endpoint) {
    this.#course = course
    this.#port = endpoint.port
    this.#w0 = endpoint.w0
    this.#w1 = endpoint.w1
    this.#w2 = endpoint.w2
    this.#w3 = endpoint.w3
  }

  get realAddress (): RealAddress {
    return this.#realAddress ??= kernelAnswer(
      this.#course, formatIPv6(this.#w0, this.#w1, this.#w2, this.#w3), this.#port, 'IPv6')
  }
}

function kernelAnswer (course: Course, address: string, port: number, family: 'IPv4' | 'IPv6'): RealAddress {
  return Object.freeze({
    address,
    port: port === 0 ? undefined : port,
    family,
    source: course.source,
    attempts: course.attempts
  })
}

/** The answer where no kernel source has one: the socket's own remote address, or none. */
export function peerAnswer (
  address: string | undefined, port: unknown, reason: Reason, attempts: ReadonlyArray<Attempt> = none
): RealAddress {
  if (address === undefined) {
    const why = reason === 'closed' || reason === 'no-answer' ? reason : 'no-address'
    return Object.freeze({ address, port: undefined, family: undefined, source: 'none', reason: why, attempts })
  }
  return Object.freeze({
    address,
    port: Number.isInteger(port) && (port as number) > 0 && (port as number) < 65536 ? port as number : undefined,
    family: address.includes(':') ? 'IPv6' : 'IPv4',
    source: 'peer',
    reason,
    attempts
  })
}
