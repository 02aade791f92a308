import { AsyncResource } from 'node:async_hooks'
import { reset } from '../node/sockets'

/** The number of connections that may be held at once; with one more the oldest is evicted. */
export const HELD_MAX = 4096

/** Why a connection is released without a call of `release()`. */
export type Expiry = 'timeout' | 'evicted'

/** A connection that is held. */
export interface Held {
  /**
   * Releases the connection and calls `then` in the next tick, in the connection's async context. Does nothing if it
   * was released before, e.g. by the timeout.
   */
  release (then: () => void): void
}

/** Connections without a decision: none of their bytes reach TLS or HTTP. Their number and their time are limited. */
export class Hold {
  // In order of arrival.
  readonly #entries = new Map<Held, { readonly socket: object, readonly expire: (why: Expiry) => void }>()
  #closed = false

  /**
   * Holds a connection. After `milliseconds`, or if too many are held, releases it and calls `expire`. After close(),
   * resets it and returns `undefined`.
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
        // In the next tick: an exception of a listener must not stop the caller, which releases others too.
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

  /** Resets all held connections, and later ones at once. */
  close (): void {
    this.#closed = true
    for (const [held, { socket }] of this.#entries) held.release(() => { reset(socket) })
  }

  /** Holds connections again: another application has taken over the server. */
  open (): void {
    this.#closed = false
  }
}
