import type { RealAddress, Reason } from '../../types'
import { type Endpoint, sameEndpoint } from '../kernel/sockaddr'
import type { Setting, Settings } from '../options/trust'
import { isPlausible } from './plausible'

/**
 * What is known of the transport peer: no policy was given; any peer is trusted; in the list; not in it; unknown; or a
 * local process that connected to a Unix-domain socket.
 */
export type PeerRow = 'unset' | 'any' | 'listed' | 'unlisted' | 'unknown' | 'unix'

/**
 * What the sources claim: only the transport peer; the same in a PROXY header; another address; an implausible one; two
 * that differ; or a PROXY header is missing or invalid.
 */
export type ClaimColumn = 'absent' | 'local' | 'plausible' | 'implausible' | 'ambiguous' | 'fault'

export interface Cell {
  /** Whose address is used; `'source'`: the source's, whether a claim or the transport peer. */
  readonly address: 'source' | 'peer' | 'none'
  readonly trust: RealAddress['trust']
  readonly reason?: Reason
  /** The setting that may reject the connection; `true`: always rejected. */
  readonly setting?: Setting | true
  /** Whose address is used if that setting is `'believe'`. */
  readonly believe?: 'source'
  /** Whether a walk through a forwarding header may start at that address. */
  readonly forwards?: true
}

const unverified: Cell =
  { address: 'none', trust: 'unverified', reason: 'unverified-peer', setting: 'unverified', believe: 'source' }
const untrusted: Cell =
  { address: 'peer', trust: 'untrusted', reason: 'untrusted-peer', setting: 'untrusted', forwards: true }

/** The table of docs/trust.md: what each combination of peer and claim leads to. */
export const table: Readonly<Record<PeerRow, Readonly<Record<ClaimColumn, Cell>>>> = {
  unset: {
    absent: { address: 'source', trust: 'unchecked' },
    local: { address: 'peer', trust: 'unchecked' },
    plausible: { address: 'source', trust: 'unchecked' },
    implausible: { address: 'peer', trust: 'unchecked', reason: 'implausible' },
    ambiguous: { address: 'peer', trust: 'unchecked', reason: 'ambiguous' },
    fault: { address: 'none', trust: 'unchecked', setting: true }
  },
  any: {
    absent: { address: 'peer', trust: 'trusted', reason: 'no-toa', forwards: true },
    local: { address: 'peer', trust: 'trusted', reason: 'proxy-local' },
    plausible: { address: 'source', trust: 'trusted', forwards: true },
    implausible: { address: 'peer', trust: 'trusted', reason: 'implausible', setting: 'invalid' },
    ambiguous: { address: 'peer', trust: 'trusted', reason: 'ambiguous', setting: 'invalid' },
    fault: { address: 'none', trust: 'trusted', setting: true }
  },
  listed: {
    absent: { address: 'peer', trust: 'trusted', reason: 'no-toa', setting: 'missing' },
    local: { address: 'peer', trust: 'trusted', reason: 'proxy-local' },
    plausible: { address: 'source', trust: 'trusted', forwards: true },
    implausible: { address: 'peer', trust: 'trusted', reason: 'implausible', setting: 'invalid' },
    ambiguous: { address: 'peer', trust: 'trusted', reason: 'ambiguous', setting: 'invalid' },
    fault: { address: 'none', trust: 'trusted', setting: true }
  },
  unlisted: {
    absent: { address: 'peer', trust: 'untrusted', forwards: true },
    local: { address: 'peer', trust: 'untrusted', forwards: true },
    plausible: untrusted,
    implausible: untrusted,
    ambiguous: untrusted,
    fault: { address: 'none', trust: 'untrusted', setting: true }
  },
  unknown: {
    absent: unverified,
    local: unverified,
    plausible: unverified,
    implausible: { address: 'none', trust: 'unverified', reason: 'implausible', setting: 'unverified' },
    ambiguous: { address: 'none', trust: 'unverified', reason: 'ambiguous', setting: 'unverified' },
    fault: { address: 'none', trust: 'unverified', setting: true }
  },
  // Claims come from a PROXY header, which is read only with 'unix' in `proxyProtocol.from`.
  unix: {
    absent: { address: 'none', trust: 'untrusted', reason: 'no-address', forwards: true },
    local: { address: 'none', trust: 'trusted', reason: 'proxy-local' },
    plausible: { address: 'source', trust: 'trusted', forwards: true },
    implausible: { address: 'none', trust: 'trusted', reason: 'implausible', setting: 'invalid' },
    ambiguous: { address: 'none', trust: 'trusted', reason: 'ambiguous', setting: 'invalid' },
    fault: { address: 'none', trust: 'trusted', setting: true }
  }
}

export function columnOf (claim: Endpoint | undefined, peer: Endpoint | undefined): ClaimColumn {
  if (claim === undefined) return 'absent'
  if (peer !== undefined && sameEndpoint(claim, peer)) return 'absent'
  return isPlausible(claim, peer) ? 'plausible' : 'implausible'
}

/** A cell with the settings applied. */
export interface Ruling {
  readonly address: Cell['address']
  readonly trust: Cell['trust']
  readonly reason: Reason | undefined
  readonly forwards: boolean
  readonly rejects: boolean
}

/** The rulings for one kind of transport peer, by claim. */
export type Rulings = Readonly<Record<ClaimColumn, Ruling>>

/**
 * The table with the settings applied. `readsHeaders`: whether PROXY headers are a source. Then the unread bytes of an
 * untrusted peer may be a header, and `untrusted: 'reject'` applies to all of its connections.
 */
export function applySettings (settings: Settings, readsHeaders: boolean): Readonly<Record<PeerRow, Rulings>> {
  const rule = ({ address, trust, reason, setting, believe, forwards }: Cell): Ruling => {
    const set = setting === true ? 'reject' : setting && settings[setting]
    return {
      address: set === 'believe' && believe !== undefined ? believe : address,
      trust,
      reason,
      forwards: forwards === true,
      rejects: set === 'reject'
    }
  }
  const mapped = <From, To>(record: Readonly<Record<string, From>>, to: (value: From) => To) =>
    Object.fromEntries(Object.entries(record).map(([key, value]) => [key, to(value)]))
  const rulings = mapped(table, (row) => mapped(row, rule)) as Record<PeerRow, Rulings>
  if (!readsHeaders || settings.untrusted !== 'reject') return rulings
  const { plausible } = rulings.unlisted
  return { ...rulings, unlisted: { ...rulings.unlisted, absent: plausible, local: plausible } }
}
