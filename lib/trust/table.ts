import type { Reason, RealAddress } from '../../types'
import { type Address, sameAddress } from '../address/address'
import type { Endpoint } from '../kernel/sockaddr'

/** What is known of the transport peer: no policy was given; any is trusted; in the list; not in it; or it is unknown. */
export type PeerRow = 'unset' | 'any' | 'listed' | 'unlisted' | 'unknown'

/** What the kernel sources claim: nothing but the transport peer itself; another address; or one that cannot be. */
export type ClaimColumn = 'absent' | 'plausible' | 'invalid'

export type Setting = 'untrusted' | 'missing' | 'invalid' | 'unverified'

export interface Cell {
  /** Whose address is the answer; `'source'` is whatever the source says, whether claim or transport peer. */
  readonly answer: 'source' | 'claim' | 'peer' | 'none'
  readonly trust: RealAddress['trust']
  readonly reason?: Reason
  /** The setting that may reject the connection instead. */
  readonly setting?: Setting
  /** The answer where that setting is `'believe'`. */
  readonly believe?: 'source'
  /** Whether a walk through a forwarding header may start at the answer. */
  readonly forwards?: true
}

/** Who is believed. */
export const table: Readonly<Record<PeerRow, Readonly<Record<ClaimColumn, Cell>>>> = {
  unset: {
    absent: { answer: 'source', trust: 'unchecked' },
    plausible: { answer: 'claim', trust: 'unchecked' },
    invalid: { answer: 'peer', trust: 'unchecked', reason: 'implausible' }
  },
  any: {
    absent: { answer: 'peer', trust: 'trusted', forwards: true },
    plausible: { answer: 'claim', trust: 'trusted', forwards: true },
    invalid: { answer: 'peer', trust: 'trusted', reason: 'implausible', setting: 'invalid' }
  },
  listed: {
    absent: { answer: 'peer', trust: 'trusted', reason: 'no-toa', setting: 'missing' },
    plausible: { answer: 'claim', trust: 'trusted', forwards: true },
    invalid: { answer: 'peer', trust: 'trusted', reason: 'implausible', setting: 'invalid' }
  },
  unlisted: {
    absent: { answer: 'peer', trust: 'untrusted', forwards: true },
    plausible: { answer: 'peer', trust: 'untrusted', reason: 'untrusted-peer', setting: 'untrusted', forwards: true },
    invalid: { answer: 'peer', trust: 'untrusted', reason: 'untrusted-peer', setting: 'untrusted', forwards: true }
  },
  unknown: {
    absent: { answer: 'none', trust: 'unverified', reason: 'unverified-peer', setting: 'unverified', believe: 'source' },
    plausible: { answer: 'none', trust: 'unverified', reason: 'unverified-peer', setting: 'unverified', believe: 'source' },
    invalid: { answer: 'none', trust: 'unverified', reason: 'implausible', setting: 'unverified' }
  }
}

export function columnOf (claim: Endpoint | undefined, peer: Address | undefined, peerPort: number): ClaimColumn {
  if (claim === undefined) return 'absent'
  if (peer !== undefined && claim.port === peerPort && sameAddress(claim, peer)) return 'absent'
  return isPlausible(claim, peer) ? 'plausible' : 'invalid'
}

/** A cell as the settings make it. */
export interface Ruling {
  readonly answer: Cell['answer']
  readonly trust: Cell['trust']
  readonly reason: Reason | undefined
  readonly forwards: boolean
  readonly rejects: boolean
}

/** What is made of each claim of one kind of transport peer. */
export type Rulings = Readonly<Record<ClaimColumn, Ruling>>

export type Settings = Readonly<Record<Setting, 'ignore' | 'reject' | 'believe'>>

/** The table as the settings make it. All that every connection asks about has one shape. */
export function applySettings (settings: Settings): Readonly<Record<PeerRow, Rulings>> {
  const rule = ({ answer, trust, reason, setting, believe, forwards }: Cell): Ruling => {
    const set = setting && settings[setting]
    return { answer: set === 'believe' && believe !== undefined ? believe : answer, trust, reason, forwards: forwards === true, rejects: set === 'reject' }
  }
  const ruleAll = ({ absent, plausible, invalid }: Record<ClaimColumn, Cell>): Rulings =>
    ({ absent: rule(absent), plausible: rule(plausible), invalid: rule(invalid) })
  const { unset, any, listed, unlisted, unknown } = table
  return { unset: ruleAll(unset), any: ruleAll(any), listed: ruleAll(listed), unlisted: ruleAll(unlisted), unknown: ruleAll(unknown) }
}

export function rulingOf (rulings: Rulings, column: ClaimColumn): Ruling {
  return column === 'plausible' ? rulings.plausible : column === 'absent' ? rulings.absent : rulings.invalid
}

export const isLoopback = ({ family, w0, w1, w2, w3 }: Address): boolean =>
  family === 'IPv4' ? w3 >>> 24 === 127 : w0 === 0 && w1 === 0 && w2 === 0 && w3 === 1

/** Whether a client can have the address at all. Private ranges are legitimate. */
export function isPlausible (claim: Address, peer: Address | undefined): boolean {
  if (claim.family === 'IPv4') {
    const first = claim.w3 >>> 24
    if (first !== 0 && first !== 127 && first < 224) return true
  } else {
    const first = claim.w0 >>> 24
    if (first !== 0 && first !== 0xff) return true
  }
  return isPlausibleThere(claim, peer)
}

/** The same where the ranges are that nobody has: apart, for V8 inlines what is short. */
function isPlausibleThere (claim: Address, peer: Address | undefined): boolean {
  if (isLoopback(claim)) return peer !== undefined && isLoopback(peer)
  // Multicast and broadcast.
  if (claim.family === 'IPv4') return claim.w3 >>> 24 >= 240 && claim.w3 !== -1
  // Multicast, ff00::/8, and ::/96.
  return claim.w0 >>> 24 === 0 && (claim.w0 !== 0 || claim.w1 !== 0 || claim.w2 !== 0)
}
