import type { RealAddress, TrustedPeers } from '../../types'
import type { Endpoint } from '../kernel/sockaddr'
import { checkTrustedPeers } from '../options/trust'
import type { Options } from '../options/options'
import { type Checked, type Evidence, isChecked } from './checked'
import { createPolicy, isTrue, type OnError, type Policy } from './policy'
import { applySettings, type PeerRow, type Ruling, type Rulings } from './table'
import { answerOf } from './verdict'

/** Rules by the current policy. Rules only: whoever asks rejects. */
export class Judge {
  /** Whether a policy was given with `trustedPeers`. */
  readonly hasPolicy: boolean
  /** Whether anything can be refused. */
  readonly canRefuse: boolean
  readonly #options: Options
  readonly #table: Readonly<Record<PeerRow, Rulings>>
  readonly #onError: OnError
  #policy: Policy

  constructor (options: Options, onError: OnError) {
    this.#options = options
    this.#onError = onError
    this.hasPolicy = options.trustedPeers !== undefined
    this.canRefuse = this.hasPolicy || options.admit !== undefined
    this.#table = applySettings(options.settings)
    this.#policy = createPolicy(options.trustedPeers, this.#table, onError)
  }

  /** Swaps the policy at once. Throws FST_REAL_IP_INVALID_OPTION, and then nothing has changed. */
  setTrustedPeers (trustedPeers: TrustedPeers): void {
    this.#policy = createPolicy(checkTrustedPeers(trustedPeers, this.#options), this.#table, this.#onError)
  }

  /** The ruling of the current policy, made once per connection and policy. */
  rule (evidence: Checked): Ruling {
    // A predicate may swap the list while it is asked: the next call rules anew then.
    const policy = this.#policy
    if (evidence.staged !== undefined) return rulingOn(evidence.staged)
    if (evidence.policy !== policy || evidence.ruling === undefined) {
      evidence.ruling = policy.rulingsOf(evidence)[evidence.column]
      evidence.policy = policy
      evidence.realAddress = undefined
    }
    return evidence.ruling
  }

  /** Whether the current policy trusts a peer; undefined: one that is not known. */
  trusts (peer: Endpoint | undefined): boolean {
    const rulings = this.#policy.rulingsOf({ peer, isUnix: false })
    return rulings === this.#table.listed || rulings === this.#table.any
  }

  /** The ruling under which a connection is allowed now; undefined: it is to be reset. */
  decide (evidence: Checked): Ruling | undefined {
    const ruling = this.rule(evidence)
    return ruling.rejects || !this.#admits(evidence, ruling) ? undefined : ruling
  }

  /** The answer for a connection, by the current policy or by a ruling of a former one. */
  answer (evidence: Evidence, ruling?: Ruling): RealAddress {
    if (!isChecked(evidence)) return evidence.realAddress
    if (evidence.staged !== undefined) return evidence.staged
    const current = this.rule(evidence)
    if (ruling !== undefined && ruling !== current) return answerOf(evidence, ruling)
    return evidence.realAddress ??= answerOf(evidence, current)
  }

  /** Asks `admit` once, and again when the answer comes to say something else. */
  #admits (evidence: Checked, ruling: Ruling): boolean {
    const { admit } = this.#options
    if (admit === undefined) return true
    const realAddress = this.answer(evidence, ruling)
    if (evidence.asked === undefined || !saysTheSame(evidence.asked, realAddress)) {
      evidence.asked = realAddress
      evidence.isAdmitted = isTrue(admit, realAddress, 'admit', this.#onError)
    }
    return evidence.isAdmitted
  }
}

const rulingOn = ({ trust, reason }: RealAddress): Ruling => ({ answer: 'source', trust, reason, forwards: false, rejects: false })

const saysTheSame = (a: RealAddress, b: RealAddress): boolean =>
  a.address === b.address && a.trust === b.trust && a.source === b.source && a.reason === b.reason
