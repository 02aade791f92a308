import { type App, apps } from './apps'
import type { Connection } from './expect'

/**
 * The connections of which the server has yet to tell, by the ends that it may name. Where a port is given out again
 * before that, several have one name: then it counts that each answer can be of another one of them.
 */
export class Untold {
  readonly #named = new Map<string, Connection[]>()
  /** Those that the server told of, each with all that the same answer can be of. */
  readonly #told = new WeakMap<Connection, readonly Connection[]>()

  add (connection: Connection): void {
    for (const name of namesOf(connection)) {
      const others = this.#named.get(name) ?? []
      const named = others.every((other) => this.#told.has(other)) ? [connection] : [...others, connection]
      if (named.length > 1) for (const one of named) one.isShared = true
      this.#named.set(name, named)
    }
  }

  /** All that the first two words of an answer name. */
  named (app: App, answer: string): readonly Connection[] {
    const [address, port] = answer.split(' ', 2) as [string, string]
    return this.#named.get(nameOf(app, address, port)) ?? []
  }

  /** Takes an answer that can be of any of these; false if all of them have one that can be of no other. */
  tell (fitting: readonly Connection[]): boolean {
    return this.#match([...fitting].sort((a, b) => rank(a) - rank(b)), new Set())
  }

  /** An augmenting path of a bipartite graph: an answer that was given to one of these may go to another. */
  #match (fitting: readonly Connection[], tried: Set<Connection>): boolean {
    const free = fitting.find((connection) => !this.#told.has(connection))
    const freed = free ?? fitting.find((connection) => {
      if (tried.has(connection)) return false
      tried.add(connection)
      return this.#match(this.#told.get(connection) as readonly Connection[], tried)
    })
    if (freed !== undefined) this.#told.set(freed, fitting)
    return freed !== undefined
  }

  /** Forgets those of before a round; returns those that were never told of. */
  forget (round: number): Connection[] {
    const untold = new Set<Connection>()
    for (const [name, connections] of this.#named) {
      const left = connections.filter((connection) => connection.round >= round)
      for (const connection of connections) {
        if (connection.round < round && !this.#told.has(connection)) untold.add(connection)
      }
      if (left.length > 0) this.#named.set(name, left)
      else this.#named.delete(name)
    }
    return [...untold]
  }
}

/** One that left may never have come to be accepted. */
const rank = ({ answered, leaves }: Connection): number => answered ? 0 : leaves ? 2 : 1

const nameOf = (app: App, address: string, port: number | string | undefined) => `${apps.indexOf(app)} ${address} ${port}`

const namesOf = ({ app, peer, claim, header }: Connection): string[] =>
  [peer, claim, header].flatMap((end) => end == null ? [] : [nameOf(app, end.address, end.port)])
