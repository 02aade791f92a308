import { channel } from 'node:diagnostics_channel'
import type { RealAddress, Stats } from '../../types'

export const connectionChannel = channel('fastify-real-ip:connection')

type Counts<By extends 'source' | 'trust' | 'reason'> = { -readonly [Key in keyof Stats[By]]: number }
type Answer = Pick<RealAddress, 'source' | 'trust' | 'reason'>

/** What connections that were answered alike have in common. */
export class Outcome {
  connections = 0
  readonly source: keyof Stats['source']
  readonly trust: keyof Stats['trust']
  readonly reason: keyof Stats['reason'] | undefined

  constructor (source: Answer['source'], trust: Answer['trust'], reason: Answer['reason']) {
    // The other sources and reasons are of requests, not of connections.
    this.source = source as keyof Stats['source']
    this.trust = trust
    this.reason = reason as keyof Stats['reason'] | undefined
  }
}

/** What became of the connections of one server, in numbers that only grow. */
export class Counters {
  rejected = 0
  // They are few: a search is cheaper than a hash.
  readonly #outcomes: Outcome[] = []

  of (source: Answer['source'], trust: Answer['trust'], reason: Answer['reason']): Outcome {
    for (const outcome of this.#outcomes) {
      if (outcome.source === source && outcome.trust === trust && outcome.reason === reason) return outcome
    }
    const outcome = new Outcome(source, trust, reason)
    this.#outcomes.push(outcome)
    return outcome
  }

  read (): Stats {
    const source: Counts<'source'> = { vtoa: 0, nat64: 0, getpeername: 0, 'saved-syn': 0, 'transport-peer': 0, peer: 0, none: 0 }
    const trust: Counts<'trust'> = { trusted: 0, untrusted: 0, unverified: 0, unchecked: 0 }
    const reason: Counts<'reason'> = {
      'no-toa': 0,
      'untrusted-peer': 0,
      'unverified-peer': 0,
      implausible: 0,
      ambiguous: 0,
      'native-unavailable': 0,
      'no-fd': 0,
      'no-answer': 0,
      closed: 0,
      'no-address': 0
    }
    let connections = 0
    for (const outcome of this.#outcomes) {
      connections += outcome.connections
      source[outcome.source] += outcome.connections
      trust[outcome.trust] += outcome.connections
      if (outcome.reason !== undefined) reason[outcome.reason] += outcome.connections
    }
    return { connections, rejected: this.rejected, source, trust, reason }
  }
}
