import type { Attempt, KernelSource } from '../../types'

/** A source of claims, other than a forwarding header. */
export type ClaimSource = KernelSource | 'proxy-protocol'

const none: ReadonlyArray<Attempt> = Object.freeze([])

/**
 * The sources asked so far with their reasons, and the next source. Connections with the same reasons share one object:
 * one of its own would take 460 bytes.
 */
export class Course {
  readonly attempts: ReadonlyArray<Attempt>
  /** The next source, if any. */
  readonly source: ClaimSource | undefined
  readonly #sources: ReadonlyArray<ClaimSource>
  readonly #next = new Map<string, Course>()

  constructor (sources: ReadonlyArray<ClaimSource>, attempts: ReadonlyArray<Attempt> = none) {
    this.#sources = sources
    this.attempts = attempts
    this.source = sources[attempts.length]
  }

  /** The course after `source` has given this reason. */
  after (reason: string): Course {
    let next = this.#next.get(reason)
    if (next === undefined) {
      const attempt = Object.freeze({ source: this.source as KernelSource, reason })
      next = new Course(this.#sources, Object.freeze([...this.attempts, attempt]))
      this.#next.set(reason, next)
    }
    return next
  }
}
