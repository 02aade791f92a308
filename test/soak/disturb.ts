import type { Child } from '../../bench/child'
import type { Lab } from '../lab/lab'
import { type Expectations, type Module, modules } from './expect'
import { createRandom } from './random'

export interface Disturbances { modules: number, lists: number, stalls: number }

/** How many connections lie between two of a kind. */
const BETWEEN: Readonly<Record<keyof Disturbances, readonly [least: number, most: number]>> = { modules: [500, 4000], lists: [300, 3000], stalls: [1000, 6000] }
// At first all comes sooner, so that what is broken shows at once.
const SOON = 5000
const SOONER = 0.1
const STALL_MAX = 250

/** Switches the stand-in, swaps the list and stalls the server's event loop, while connections are made. */
export class Disturbance {
  readonly counts: Disturbances = { modules: 0, lists: 0, stalls: 0 }
  readonly #lab: Lab
  readonly #server: Child
  readonly #expectations: Expectations
  readonly #sources: readonly string[]
  readonly #random
  readonly #next: Disturbances = { modules: 0, lists: 0, stalls: 0 }
  #order = Promise.resolve()

  constructor (seed: number, lab: Lab, server: Child, expectations: Expectations, sources: readonly string[]) {
    this.#random = createRandom(seed, -1)
    this.#lab = lab
    this.#server = server
    this.#expectations = expectations
    this.#sources = sources
  }

  /** What is due at the `nth` connection. */
  at (nth: number): void {
    if (this.#isDue('modules', nth)) this.#switchModule()
    if (this.#isDue('lists', nth)) this.#inTurn(() => this.#swapList())
    if (this.#isDue('stalls', nth)) this.#inTurn(() => this.#server.ask('stall', 1 + this.#random.below(STALL_MAX)))
  }

  /** Resolves when nothing is under way; then lists and module stay until the next connection. */
  async settle (): Promise<void> {
    await this.#order
  }

  #isDue (what: keyof typeof BETWEEN, nth: number): boolean {
    if (nth < this.#next[what]) return false
    const [least, most] = BETWEEN[what]
    this.#next[what] = nth + (least + this.#random.below(most - least)) * (nth < SOON ? SOONER : 1)
    this.counts[what]++
    return true
  }

  #inTurn (work: () => Promise<void>): void {
    this.#order = this.#order.then(work)
    this.#order.catch(() => {}) // settle() throws it
  }

  // Synchronous: no connection is begun meanwhile.
  #switchModule (): void {
    const { module } = this.#lab
    const next: Module = modules[this.counts.modules - 1] ?? this.#random.pick(modules.filter((other) => other !== this.#expectations.module))
    module.stop()
    module.fault(next === 'short' ? { bytesWritten: 2 } : {})
    if (next !== 'off') module.start({ getsockopt: next !== 'getpeername', getpeername: next === 'both' || next === 'getpeername' })
    this.#expectations.switchModule(next)
  }

  async #swapList (): Promise<void> {
    const list = this.#sources.filter(() => this.#random.chance(0.6))
    const swapped = this.#expectations.swapList(new Set(list))
    await this.#server.ask('trust', list)
    swapped()
  }
}
