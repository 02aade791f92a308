import type { Options } from '../options/options'
import type { Senders } from '../sources/choose'
import type { Guard } from '../trust/guard'
import type { Judge } from '../trust/judge'
import type { Suspicions } from '../trust/suspicions'
import type { Tally } from '../trust/tally'
import type { Warnings } from '../warnings'
import type { HeaderPolicy } from './proxy-headers'

/** An application whose options decide about the connections of a server. */
export interface Owner {
  readonly options: Options
  readonly guard: Guard
  readonly judge: Judge
  readonly tally: Tally
  readonly suspicions: Suspicions
  readonly warnings: Warnings
  /** `undefined`: no PROXY header is expected. */
  readonly headers: HeaderPolicy | undefined
}

/**
 * The applications on one server; the last one decides. There is more than one while a server restarts in place
 * (@fastify/restartable): the new application listens before the old one closes.
 */
export class Owners {
  readonly #all: Owner[] = []
  readonly #stack: Owner[] = []
  readonly #ready = new Set<Owner>()
  #senders: Senders | undefined

  /** The one that decides; after all have closed, still the last one. */
  get current (): Owner { return this.#stack.at(-1) as Owner }

  get senders (): Senders | undefined { return this.#senders }

  /** Returns the shared senders, created by the first caller that needs them. */
  shareSenders (create: () => Senders): Senders {
    return this.#senders ??= create()
  }

  get isEmpty (): boolean { return this.#stack.length === 0 }

  /** Adds an owner, which decides after put(). */
  add (owner: Owner): void {
    this.#all.push(owner)
  }

  /** The first defined result of a function that is called with each owner. */
  first<Result> (ask: (owner: Owner) => Result | undefined): Result | undefined {
    for (const owner of this.#all) {
      const result = ask(owner)
      if (result !== undefined) return result
    }
    return undefined
  }

  /** The owner's application is ready, and listens next. */
  setReady (owner: Owner): void {
    this.#ready.add(owner)
  }

  /**
   * Whether no other application serves, or is about to. One that failed before it was ready does not count: nobody may
   * ever close it.
   */
  servesAlone (owner: Owner): boolean {
    return this.#ready.size === (this.#ready.has(owner) ? 1 : 0)
  }

  /** Makes an owner decide from now on. */
  put (owner: Owner): void {
    if (!this.#stack.includes(owner)) this.#stack.push(owner)
  }

  /**
   * Removes an owner; the previous one decides again. Returns true if it was the last, which continues to decide about
   * late events.
   */
  remove (owner: Owner): boolean {
    this.#ready.delete(owner)
    if (this.#isOnly(owner)) return true
    remove(this.#all, owner)
    remove(this.#stack, owner)
    // Already listens; its own onListen hook is still pending.
    if (this.isEmpty) this.#stack.push(this.#all.at(-1) as Owner)
    return false
  }

  /** Whether there is no other owner, including those that do not decide yet. */
  #isOnly (owner: Owner): boolean {
    return this.#all.length === 1 && this.#all[0] === owner
  }
}

function remove (owners: Owner[], owner: Owner): void {
  const at = owners.indexOf(owner)
  if (at >= 0) owners.splice(at, 1)
}
