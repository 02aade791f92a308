import { AsyncResource } from 'node:async_hooks'
import { reset } from '../node/sockets'

/** The number of connections that may be held at once; with one more the oldest is evicted. */
export const HELD_MAX = 4096

/** Why a connection is held no longer without having been released. */
export type Expiry = 'timeout' | 'evicted'

/** A connection that is held. */
export interface Held {
  /**
   * Lets go of the connection and calls `then` soon, in the connection's async context. Does nothing if that was done
   * before, e.g. by the time-out.
   */
  release (then: () => void): void
}

/**
 * The connections that are not decided about yet: nothing of them reaches TLS or HTTP. Their number is bounded, and the
 * time of each.
 */
export class Hold {
  // In the order of their arrival.
  readonly #entries = new Map<Held, { readonly socket: object, readonly expire: (why: Expiry) => void }>()
  #closed = false

  /**
   * Holds a connection: after `milliseconds`, or when there are too many, it is released with `expire`. Undefined, and
   * the connection is reset, where nothing is held any more.
   */
  take (socket: object, milliseconds: number, expire: (why: Expiry) => void): Held | undefined {
    if (this.#closed) {
      reset(socket)
      return undefined
    }
    const context = new AsyncResource('fastify-real-ip')
    const entries = this.#entries
    const held: Held = {
      release (then) {
        if (!entries.delete(held)) return
        clearTimeout(timer)
        // Not at once: what a listener throws must not end the caller, which releases others too.
        process.nextTick(() => { context.runInAsyncScope(then) })
      }
    }
    const timer = setTimeout(() => { held.release(() => { expire('timeout') }) }, milliseconds).unref()
    entries.set(held, { socket, expire })
    if (entries.size > HELD_MAX) this.#evictOldest()
    return held
  }

  #evictOldest (): void {
    const [oldest] = this.#entries
    const [held, { expire }] = oldest as NonNullable<typeof oldest>
    held.release(() => { expire('evicted') })
  }

  /** Resets what is held; nothing is held from now on. */
  close (): void {
    this.#closed = true
    for (const [held, { socket }] of this.#entries) held.release(() => { reset(socket) })
  }

  /** Holds again: another application has taken over the server. */
  open (): void {
    this.#closed = false
  }
}
