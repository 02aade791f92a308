import type { TrustedPeers } from '../../types'
import { compileRanges } from '../address/ranges'
import type { PeerAddress } from '../kernel/peer-search'
import type { PeerRow, Rulings } from './table'

/** One state of the list: never changed, only replaced, so that what was judged under it can be told by its identity. */
export interface Policy {
  rulingsOf (peer: PeerAddress | undefined, port: number): Rulings
}

export function createPolicy (
  trustedPeers: TrustedPeers | undefined, table: Readonly<Record<PeerRow, Rulings>>, onError: (message: string, error?: unknown) => void
): Policy {
  if (trustedPeers === undefined) return { rulingsOf: () => table.unset }
  if (trustedPeers === 'any') return { rulingsOf: () => table.any }
  if (typeof trustedPeers === 'function') {
    return {
      rulingsOf (peer, port) {
        if (peer === undefined) return table.unknown
        return isTrue(trustedPeers, { address: peer.text, port: port === 0 ? undefined : port }, 'trustedPeers', onError)
          ? table.listed
          : table.unlisted
      }
    }
  }
  const ranges = compileRanges(trustedPeers, 'trustedPeers')
  const policy: Policy = {
    rulingsOf (peer) {
      if (peer === undefined) return table.unknown
      if (peer.judgedBy !== policy) {
        peer.rulings = ranges.includes(peer) ? table.listed : table.unlisted
        peer.judgedBy = policy
      }
      return peer.rulings as Rulings
    }
  }
  return policy
}

/** Calls a predicate of the user's: only exact `true` counts, and whatever it does instead is an error that is logged. */
export function isTrue<T> (
  predicate: (argument: T) => unknown, argument: T, name: string, onError: (message: string, error?: unknown) => void
): boolean {
  try {
    const result = predicate(argument)
    if (typeof (result as PromiseLike<unknown> | undefined)?.then === 'function') {
      // Its rejection must not end the process.
      Promise.resolve(result).catch(() => {})
      onError(`'${name}' returned a promise, which counts as false: it must be synchronous`)
    }
    return result === true
  } catch (error) {
    onError(`'${name}' threw, which counts as false`, error)
    return false
  }
}
