import type { RealAddress, VirtualServer } from '../../types'
import type { Endpoint } from '../kernel/sockaddr'
import type { ProxyHeader } from '../sources/proxy-header'
import type { Claim, Fallback } from './claim'
import { type ClaimColumn, columnOf, type Ruling } from './table'

/** A claim, or a substitute for one, with the transport peer that it is checked against. */
export class Checked {
  readonly claim: Claim | Fallback
  readonly peer: Endpoint | undefined
  readonly column: ClaimColumn
  /** Accepted by a listening Unix-domain socket. */
  readonly isUnix: boolean
  /** Made by inject(). */
  readonly isInjected: boolean
  readonly virtualServer: VirtualServer | undefined
  /** The PROXY header, even if it names no client. */
  readonly header: ProxyHeader | undefined
  /** A test's answer, whatever the policy. */
  readonly staged: RealAddress | undefined
  /** The policy that ruled last, its ruling and answer. Another policy rules again. */
  policy: object | undefined = undefined
  ruling: Ruling | undefined = undefined
  realAddress: RealAddress | undefined = undefined
  /** What `admit` was last asked. Another application on the server has another `admit`. */
  asked: Asked | undefined = undefined

  constructor (claim: Claim | Fallback, peer: Endpoint | undefined, details: Details = none) {
    this.claim = claim
    this.peer = peer
    this.column = details.column ?? columnOf(claim.course === undefined ? undefined : claim, peer)
    this.isUnix = details.isUnix === true
    this.isInjected = details.isInjected === true
    this.virtualServer = details.virtualServer
    this.header = details.header
    this.staged = details.staged
  }
}

export interface Asked {
  readonly by: object
  readonly about: RealAddress
  readonly isAdmitted: boolean
}

export interface Details {
  readonly column?: ClaimColumn | undefined
  readonly isUnix?: boolean
  readonly isInjected?: boolean
  readonly virtualServer?: VirtualServer | undefined
  readonly header?: ProxyHeader | undefined
  readonly staged?: RealAddress | undefined
}

const none: Details = {}

/** What is known of a connection. It is not `Checked` only if nothing can be refused. */
export type Evidence = Claim | Fallback | Checked

/**
 * Evidence that another application on this server found without a policy, for one that can refuse: it does not contain
 * the sender.
 */
export const withoutSender = (found: Claim | Fallback, hasPolicy: boolean): Checked =>
  new Checked(found, undefined, !hasPolicy && found.course !== undefined ? { column: 'plausible' } : {})

/** Not checked by class: another copy of this package may have created it. */
export const isChecked = (evidence: Evidence): evidence is Checked => 'column' in evidence
