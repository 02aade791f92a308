import type { RealAddress, Reason } from '../../types'
import { sameAddress } from '../address/address'
import type { Endpoint } from '../kernel/sockaddr'
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
  /** Whose address is the answer; `'source'`: the source's, whether a claim or the transport peer. */
  readonly answer: 'source' | 'claim' | 'peer' | 'none'
  readonly trust: RealAddress['trust']
  readonly reason?: Reason
  /** The setting that may reject the connection; `true`: always rejected. */
  readonly setting?: Setting | true
  /** The answer if that setting is `'believe'`. */
  readonly believe?: 'source'
  /** Whether a walk through a forwarding header may start at the answer. */
  readonly forwards?: true
}

const unverified: Cell =
  { answer: 'none', trust: 'unverified', reason: 'unverified-peer', setting: 'unverified', believe: 'source' }
const untrusted: Cell =
  { answer: 'peer', trust: 'untrusted', reason: 'untrusted-peer', setting: 'untrusted', forwards: true }

/** The table of docs/trust.md: what each combination of peer and claim leads to. */
export const table: Readonly<Record<PeerRow, Readonly<Record<ClaimColumn, Cell>>>> = {
  unset: {
    absent: { answer: 'source', trust: 'unchecked' },
    local: { answer: 'peer', trust: 'unchecked' },
    plausible: { answer: 'claim', trust: 'unchecked' },
    implausible: { answer: 'peer', trust: 'unchecked', reason: 'implausible' },
    ambiguous: { answer: 'peer', trust: 'unchecked', reason: 'ambiguous' },
    fault: { answer: 'none', trust: 'unchecked', setting: true }
  },
  any: {
    absent: { answer: 'peer', trust: 'trusted', reason: 'no-toa', forwards: true },
    local: { answer: 'peer', trust: 'trusted', reason: 'proxy-local' },
    plausible: { answer: 'claim', trust: 'trusted', forwards: true },
    implausible: { answer: 'peer', trust: 'trusted', reason: 'implausible', setting: 'invalid' },
    ambiguous: { answer: 'peer', trust: 'trusted', reason: 'ambiguous', setting: 'invalid' },
    fault: { answer: 'none', trust: 'trusted', setting: true }
  },
  listed: {
    absent: { answer: 'peer', trust: 'trusted', reason: 'no-toa', setting: 'missing' },
    local: { answer: 'peer', trust: 'trusted', reason: 'proxy-local' },
    plausible: { answer: 'claim', trust: 'trusted', forwards: true },
    implausible: { answer: 'peer', trust: 'trusted', reason: 'implausible', setting: 'invalid' },
    ambiguous: { answer: 'peer', trust: 'trusted', reason: 'ambiguous', setting: 'invalid' },
    fault: { answer: 'none', trust: 'trusted', setting: true }
  },
  unlisted: {
    absent: { answer: 'peer', trust: 'untrusted', forwards: true },
    local: { answer: 'peer', trust: 'untrusted', forwards: true },
    plausible: untrusted,
    implausible: untrusted,
    ambiguous: untrusted,
    fault: { answer: 'none', trust: 'untrusted', setting: true }
  },
  unknown: {
    absent: unverified,
    local: unverified,
    plausible: unverified,
    implausible: { answer: 'none', trust: 'unverified', reason: 'implausible', setting: 'unverified' },
    ambiguous: { answer: 'none', trust: 'unverified', reason: 'ambiguous', setting: 'unverified' },
    fault: { answer: 'none', trust: 'unverified', setting: true }
  },
  // Claims come from a PROXY header, which is read only with 'unix' in `proxyProtocol.from`.
  unix: {
    absent: { answer: 'none', trust: 'untrusted', reason: 'no-address', forwards: true },
    local: { answer: 'none', trust: 'trusted', reason: 'proxy-local' },
    plausible: { answer: 'claim', trust: 'trusted', forwards: true },
    implausible: { answer: 'none', trust: 'trusted', reason: 'implausible', setting: 'invalid' },
    ambiguous: { answer: 'none', trust: 'trusted', reason: 'ambiguous', setting: 'invalid' },
    fault: { answer: 'none', trust: 'trusted', setting: true }
  }
}

export function columnOf (claim: Endpoint | undefined, peer: Endpoint | undefined): ClaimColumn {
  if (claim === undefined) return 'absent'
  if (peer !== undefined && claim.port === peer.port && sameAddress(claim, peer)) return 'absent'
  return isPlausible(claim, peer) ? 'plausible' : 'implausible'
}

/** A cell with the settings applied. */
export interface Ruling {
  readonly answer: Cell['answer']
  readonly trust: Cell['trust']
  readonly reason: Reason | undefined
  readonly forwards: boolean
  readonly rejects: boolean
}

/** The rulings for one kind of transport peer, by claim. */
export type Rulings = Readonly<Record<ClaimColumn, Ruling>>

/** The table with the settings applied. */
export function applySettings (settings: Settings): Readonly<Record<PeerRow, Rulings>> {
  const rule = ({ answer, trust, reason, setting, believe, forwards }: Cell): Ruling => {
    const set = setting === true ? 'reject' : setting && settings[setting]
    return {
      answer: set === 'believe' && believe !== undefined ? believe : answer,
      trust,
      reason,
      forwards: forwards === true,
      rejects: set === 'reject'
    }
  }
  const mapped = <From, To>(record: Readonly<Record<string, From>>, to: (value: From) => To) =>
    Object.fromEntries(Object.entries(record).map(([key, value]) => [key, to(value)]))
  return mapped(table, (row) => mapped(row, rule)) as Record<PeerRow, Rulings>
}
