import type { TransportPeer, TrustedPeers } from '../../types'
import { compileRanges } from '../address/ranges'
import type { Endpoint } from '../kernel/sockaddr'
import type { Checked } from './checked'
import type { PeerRow, Rulings } from './table'
import { describePeer } from './verdict'

/** One state of the list. Immutable: its identity tells which policy ruled. */
export interface Policy {
  rulingsOf (connection: Pick<Checked, 'isUnix' | 'peer'>): Rulings
}

export type OnError = (message: string, error?: unknown) => void

/** `trustsUnix`: whether PROXY headers of a listening Unix-domain socket count under a list. */
export function createPolicy (
  trustedPeers: TrustedPeers | undefined, trustsUnix: boolean, table: Readonly<Record<PeerRow, Rulings>>,
  onError: OnError
): Policy {
  if (trustedPeers === undefined) return { rulingsOf: () => table.unset }
  if (trustedPeers === 'any') return { rulingsOf: () => table.any }
  const includes = typeof trustedPeers === 'function'
    ? askPredicate(trustedPeers, onError)
    : compileRanges(trustedPeers, 'trustedPeers').includes
  const { absent, fault } = table.unix
  // A header can have been read under another policy.
  const unix = trustsUnix
    ? table.unix
    : { absent, local: absent, plausible: absent, implausible: absent, ambiguous: absent, fault }
  return {
    rulingsOf ({ isUnix, peer }) {
      if (isUnix) return unix
      if (peer === undefined) return table.unknown
      return includes(peer) ? table.listed : table.unlisted
    }
  }
}

function askPredicate (trustedPeers: (peer: TransportPeer) => boolean, onError: OnError) {
  return (peer: Endpoint): boolean => isTrue(trustedPeers, describePeer(peer), 'trustedPeers', onError)
}

/** Calls a user's predicate. Only exact `true` counts; exceptions and other values are logged as errors. */
export function isTrue<T> (predicate: (argument: T) => unknown, argument: T, name: string, onError: OnError): boolean {
  try {
    const result = predicate(argument)
    if (typeof (result as PromiseLike<unknown> | undefined)?.then === 'function') {
      // An unhandled rejection would end the process.
      Promise.resolve(result).catch(() => {})
      onError(`'${name}' returned a promise, which counts as false: it must be synchronous`)
    }
    return result === true
  } catch (error) {
    onError(`'${name}' threw, which counts as false`, error)
    return false
  }
}
