import type { RealAddress, TrustedPeers } from '../../types'
import type { Endpoint } from '../kernel/sockaddr'
import { Remembered } from '../node/remembered'
import { checkTrustedPeers } from '../options/trust'
import type { Options } from '../options/options'
import { type Checked, type Evidence, isChecked, withoutSender } from './checked'
import { createPolicy, isTrue, type OnError, type Policy } from './policy'
import { applySettings, type PeerRow, type Ruling, type Rulings } from './table'
import { answerOf } from './verdict'

/** Rules by the current policy. The caller rejects. */
export class Judge {
  /** Whether there is a policy, given with `trustedPeers`. */
  readonly hasPolicy: boolean
  /** Whether any connection can be refused. */
  readonly canRefuse: boolean
  readonly #options: Options
  readonly #table: Readonly<Record<PeerRow, Rulings>>
  readonly #onError: OnError
  readonly #adopted = new Remembered<Checked>()
  #policy: Policy

  constructor (options: Options, onError: OnError) {
    this.#options = options
    this.#onError = onError
    this.hasPolicy = options.trustedPeers !== undefined
    this.canRefuse = this.hasPolicy || options.admit !== undefined
    this.#table = applySettings(options.settings, options.proxyProtocol !== undefined)
    this.#policy = this.#createPolicy(options.trustedPeers)
  }

  /** Replaces the policy at once; returns its list. Throws FST_REAL_IP_INVALID_OPTION, and then changes nothing. */
  setTrustedPeers (given: TrustedPeers): TrustedPeers {
    const trustedPeers = checkTrustedPeers(given, this.#options)
    this.#policy = this.#createPolicy(trustedPeers)
    return trustedPeers
  }

  /**
   * Evidence for this application. What another application found without a policy is wrapped once, without a sender.
   */
  adopt (found: Evidence): Evidence {
    if (!this.canRefuse || isChecked(found)) return found
    let adopted = this.#adopted.of(found)
    if (adopted === undefined) {
      adopted = withoutSender(found, this.hasPolicy)
      this.#adopted.set(found, adopted)
    }
    return adopted
  }

  #createPolicy (trustedPeers: TrustedPeers | undefined): Policy {
    const trustsUnix = this.#options.proxyProtocol?.from?.unix === true
    return createPolicy(trustedPeers, trustsUnix, this.#table, this.#onError)
  }

  /** The ruling of the current policy, made once per connection and policy. */
  rule (evidence: Checked): Ruling {
    // A predicate may replace the list while it runs: the next call then rules again.
    const policy = this.#policy
    if (evidence.staged !== undefined) return rulingOn(evidence.staged)
    if (evidence.policy !== policy || evidence.ruling === undefined) {
      evidence.ruling = policy.rulingsOf(evidence)[evidence.column]
      evidence.policy = policy
      evidence.realAddress = undefined
    }
    return evidence.ruling
  }

  /** Whether the current policy trusts a peer; `undefined` is an unknown one. */
  trusts (peer: Endpoint | undefined, isUnix: boolean): boolean {
    const rulings = this.#policy.rulingsOf({ peer, isUnix })
    const { listed, any, unix } = this.#table
    return rulings === listed || rulings === any || rulings === unix
  }

  /** The ruling that allows a connection now; `undefined`: reset it. */
  decide (evidence: Checked): Ruling | undefined {
    const ruling = this.rule(evidence)
    return ruling.rejects || !this.#admits(evidence, ruling) ? undefined : ruling
  }

  /** The answer for a connection, by the current policy or an earlier ruling. */
  answer (evidence: Evidence, ruling?: Ruling): RealAddress {
    if (!isChecked(evidence)) return evidence.realAddress
    if (evidence.staged !== undefined) return evidence.staged
    const current = this.rule(evidence)
    if (ruling !== undefined && ruling !== current) return answerOf(evidence, ruling)
    return evidence.realAddress ??= answerOf(evidence, current)
  }

  /** Asks `admit` once, and again if the answer changes. */
  #admits (evidence: Checked, ruling: Ruling): boolean {
    const { admit } = this.#options
    if (admit === undefined) return true
    const about = this.answer(evidence, ruling)
    const { asked } = evidence
    if (asked?.by === this && isSameAnswer(asked.about, about)) return asked.isAdmitted
    const isAdmitted = isTrue(admit, about, 'admit', this.#onError)
    evidence.asked = { by: this, about, isAdmitted }
    return isAdmitted
  }
}

const rulingOn = ({ trust, reason }: RealAddress): Ruling =>
  ({ address: 'source', trust, reason, forwards: false, rejects: false })

const isSameAnswer = (a: RealAddress, b: RealAddress): boolean =>
  a.address === b.address && a.trust === b.trust && a.source === b.source && a.reason === b.reason
