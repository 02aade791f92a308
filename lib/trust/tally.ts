import { channel } from 'node:diagnostics_channel'
import { debuglog } from 'node:util'
import type { ConnectionMessage, RealAddress, Stats } from '../../types'

// NODE_DEBUG=fastify-real-ip
const debug = debuglog('fastify-real-ip')
const isDebugged = debug.enabled
const connectionChannel = channel('fastify-real-ip:connection')

type Counts<By extends 'source' | 'trust' | 'reason'> = { -readonly [Key in keyof Stats[By]]: number }
type Outcome = Pick<RealAddress, 'source' | 'trust' | 'reason'>

/** Counts the connections of one application, and publishes them. */
export class Tally {
  #rejected = 0
  // A linear search is enough: there are few combinations.
  readonly #outcomes: Array<Outcome & { connections: number }> = []

  /** Records one decision about a connection. */
  count (source: Outcome['source'], trust: Outcome['trust'], reason: Outcome['reason'], isRejected: boolean): void {
    if (isRejected) this.#rejected++
    for (const outcome of this.#outcomes) {
      if (outcome.source === source && outcome.trust === trust && outcome.reason === reason) {
        outcome.connections++
        return
      }
    }
    this.#outcomes.push({ source, trust, ...(reason && { reason }), connections: 1 })
  }

  /** Whether anyone subscribes to connections. */
  get hasSubscribers (): boolean { return connectionChannel.hasSubscribers || isDebugged }

  publish (socket: object, realAddress: RealAddress): void {
    connectionChannel.publish({ socket, realAddress } as ConnectionMessage)
    const { address, source, trust, reason, transportPeer } = realAddress
    const why = reason === undefined ? '' : ` (${reason})`
    debug('%s by %s, %s%s, sent by %s', address, source, trust, why, transportPeer?.address)
  }

  read (): Stats {
    const source: Counts<'source'> =
      { vtoa: 0, nat64: 0, getpeername: 0, 'saved-syn': 0, 'proxy-protocol': 0, 'transport-peer': 0, peer: 0, none: 0 }
    const trust: Counts<'trust'> = { trusted: 0, untrusted: 0, unverified: 0, unchecked: 0 }
    const reason: Counts<'reason'> = {
      'no-toa': 0,
      'untrusted-peer': 0,
      'unverified-peer': 0,
      implausible: 0,
      ambiguous: 0,
      'proxy-local': 0,
      'proxy-missing': 0,
      'proxy-malformed': 0,
      'proxy-too-long': 0,
      'proxy-checksum': 0,
      'proxy-cut-short': 0,
      'proxy-timeout': 0,
      'proxy-evicted': 0,
      'native-unavailable': 0,
      'no-fd': 0,
      'no-answer': 0,
      closed: 0,
      'no-address': 0
    }
    let connections = 0
    for (const outcome of this.#outcomes) {
      connections += outcome.connections
      // The other sources and reasons belong to requests.
      source[outcome.source as keyof typeof source] += outcome.connections
      trust[outcome.trust] += outcome.connections
      if (outcome.reason !== undefined) reason[outcome.reason as keyof typeof reason] += outcome.connections
    }
    return { connections, rejected: this.#rejected, source, trust, reason }
  }
}
