import type { Child } from '../../bench/child'
import type { Lab } from '../lab/lab'
import { attachments, modules, type Place, places } from './apps'
import type { Expectations } from './expect'
import type { Random } from './random'

export interface Disturbances { modules: number, attachments: number, lists: number, stalls: number }

/** How many connections lie between two of a kind. */
const BETWEEN: Readonly<Record<keyof Disturbances, readonly [least: number, most: number]>> =
  { modules: [500, 4000], attachments: [500, 4000], lists: [300, 3000], stalls: [1000, 6000] }
// At first all comes sooner, so that what is broken shows at once.
const SOON = 5000
const SOONER = 0.1
const STALL_MAX = 250

/**
 * Switches the stand-in, attaches and detaches, swaps the lists and stalls an event loop of the servers', while
 * connections are made.
 */
export class Disturbance {
  readonly counts: Disturbances = { modules: 0, attachments: 0, lists: 0, stalls: 0 }
  readonly #lab: Lab
  readonly #servers: Readonly<Record<Place, Child>>
  readonly #expectations: Readonly<Record<Place, Expectations>>
  readonly #sources: readonly string[]
  readonly #random: Random
  readonly #next: Disturbances = { modules: 0, attachments: 0, lists: 0, stalls: 0 }
  #order = Promise.resolve()

  constructor (
    random: Random, lab: Lab, servers: Readonly<Record<Place, Child>>, expectations: Readonly<Record<Place, Expectations>>, sources: readonly string[]
  ) {
    this.#random = random
    this.#lab = lab
    this.#servers = servers
    this.#expectations = expectations
    this.#sources = sources
  }

  /** What is due at the `nth` connection. */
  at (nth: number): void {
    if (this.#isDue('modules', nth)) this.#switchModule()
    if (this.#isDue('attachments', nth)) {
      const turn = this.counts.attachments
      this.#inTurn(() => this.#attach(turn))
    }
    if (this.#isDue('lists', nth)) this.#inTurn(() => Promise.all(places.map((place) => this.#swapList(place))))
    if (this.#isDue('stalls', nth)) this.#inTurn(() => this.#servers[this.#random.pick(places)].ask('stall', 1 + this.#random.below(STALL_MAX)))
  }

  /** Resolves when nothing is under way; then lists and modules stay until the next connection. */
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

  #inTurn (work: () => Promise<unknown>): void {
    this.#order = this.#order.then(work).then(() => {})
    this.#order.catch(() => {}) // settle() throws it
  }

  // Synchronous: no connection is begun meanwhile.
  #switchModule (): void {
    const { module } = this.#lab
    const { process, worker } = this.#expectations
    const next = this.#following(modules, this.counts.modules, process.module)
    const switched = [process.switchModule(next), worker.switchModule(next)]
    module.stop()
    module.fault(next === 'short' ? { bytesWritten: 2 } : {})
    if (next !== 'off') module.start({ getsockopt: next !== 'getpeername', getpeername: next === 'both' || next === 'getpeername' })
    for (const done of switched) done()
  }

  async #attach (turn: number): Promise<void> {
    const { attached } = this.#expectations
    const next = this.#following(attachments, turn, attached.module)
    const switched = attached.switchModule(next, next === 'off' || attached.module === 'off')
    await this.#servers.attached.ask('attach', next)
    switched()
  }

  /** Each in turn at first. */
  #following<Name> (names: readonly Name[], turn: number, now: unknown): Name {
    return names[turn - 1] ?? this.#random.pick(names.filter((other) => other !== now))
  }

  async #swapList (place: Place): Promise<void> {
    const list = this.#sources.filter(() => this.#random.chance(0.6))
    const swapped = this.#expectations[place].swapList(new Set(list))
    await this.#servers[place].ask('trust', list)
    swapped()
  }
}
