import { AsyncResource } from 'node:async_hooks'
import { networkInterfaces } from 'node:os'
import type { FastifyBaseLogger } from 'fastify'
import type { ConnectionMessage, RealAddress, TrustedPeers } from '../types'
import { parseAddress, sameAddress } from './address'
import { reset } from './connection'
import { asClaim, Checked, type Claim, type Evidence, type Fallback, isClaim, isPending } from './evidence'
import { checkList, checkTrustedPeers, type Options } from './options'
import { createPolicy, isTrue, type Policy } from './policy'
import { createEndpoint, type Endpoint, sameEndpoint } from './sockaddr'
import type { Source } from './sources/source'
import { connectionChannel, Counters } from './stats'
import { peerAddress, type PeerAddress, type TransportPeers } from './transport-peer'
import { type Cell, columnOf, isLoopback, isPlausible, table } from './trust'
import { answerOf, reasonOf, sourceOf } from './verdict'
import type { VirtualServerReader } from './virtual-server'
import type { Warnings } from './warnings'

const ERROR_INTERVAL = 1000
const SAMPLED = 1024

/** What the guard has of the kernel. */
export interface Kernel {
  readonly peers: TransportPeers
  readonly witnesses: ReadonlyArray<Source>
  readonly readVirtualServer: VirtualServerReader | undefined
}

/** Checks what the sources claim against the transport peer, and closes the connections that are not wanted. */
export class Guard {
  /** Whether a policy was given; without one the transport peer is looked for only where a claim cannot be true. */
  readonly hasPolicy: boolean
  /** Whether a claim differed from the transport peer. */
  rewritten = false
  readonly counters = new Counters()
  readonly #options: Options
  readonly #peers: TransportPeers | undefined
  readonly #log: FastifyBaseLogger
  readonly #warnings: Warnings
  readonly #takesAll: boolean
  readonly #believes: boolean
  readonly #witnesses: ReadonlyArray<Source>
  readonly #readVirtualServer: VirtualServerReader | undefined
  readonly #sender = createEndpoint()
  readonly #endpoint = createEndpoint()
  readonly #waiting = new Map<Checked, Array<() => void>>()
  #policy: Policy
  #claims = 0
  #firstUntrusted = true
  #errorAt = -Infinity

  /**
   * `kernel` is undefined where the system calls cannot be made. Its witnesses are sources that must not contradict the
   * one that answers.
   */
  constructor (options: Options, kernel: Kernel | undefined, log: FastifyBaseLogger, warnings: Warnings) {
    this.#options = options
    this.#peers = kernel?.peers
    this.#witnesses = kernel?.witnesses ?? []
    this.#readVirtualServer = kernel?.readVirtualServer
    this.#log = log
    this.#warnings = warnings
    this.hasPolicy = options.trustedPeers !== undefined
    this.#takesAll = !this.hasPolicy && options.admit === undefined && !options.virtualServer
    this.#believes = options.settings.unverified === 'believe'
    this.#policy = createPolicy(options.trustedPeers, this.#logError)
  }

  /** Swaps the policy at once. Throws FST_REAL_IP_INVALID_OPTION, and then nothing has changed. */
  setTrustedPeers (trustedPeers: TrustedPeers): void {
    if (this.#options.toa !== undefined) checkList(trustedPeers)
    this.#policy = createPolicy(checkTrustedPeers(trustedPeers), this.#logError)
  }

  /** Who sent a new connection's SYN, before any source is asked about it; undefined where that is not known yet. */
  readSender (fd: number): Endpoint | undefined {
    if (!this.hasPolicy || this.#peers === undefined || fd < 0) return undefined
    if (this.#peers.readSavedSyn(fd, this.#sender)) return this.#sender
    if (this.#peers.armed) this.#warnings.warn('EMPTY_SYN')
    return undefined
  }

  /** Looks at a new connection: finds its transport peer where that is called for, and resets it where it is not wanted. */
  examine (socket: object, fd: number, sender: Endpoint | undefined, found: Claim | Fallback): Evidence {
    const claim = asClaim(found)
    if (claim?.course.source === 'vtoa') this.#sample(fd, claim)
    // The way of most connections, so the shortest.
    if (this.#takesAll && claim !== undefined && isPlausible(claim, undefined)) return claim
    let evidence: Evidence = found
    if (this.hasPolicy) {
      evidence = new Checked(found)
      if (sender !== undefined) {
        evidence.ambiguous = this.#contradicts(fd, sender, claim)
        evidence.peer = peerAddress(sender)
        evidence.peerPort = sender.port
      } else if (fd >= 0) {
        this.#search(socket, fd, evidence)
      }
    } else if (claim !== undefined && !isPlausible(claim, undefined)) {
      const checked = this.#search(socket, fd, new Checked(found))
      // A client of this host itself, say: what the source says is true.
      const isProven = !checked.pending && this.#judge(checked) === table.unset.absent
      if (!isProven || this.#readVirtualServer !== undefined) evidence = checked
    }
    if (this.#readVirtualServer !== undefined && fd >= 0) {
      if (!(evidence instanceof Checked)) evidence = new Checked(found)
      evidence.virtualServer = this.#readVirtualServer(fd)
    }
    if (this.#refuses(evidence)) this.#reject(socket)
    return evidence
  }

  /**
   * Whether a witness claims another client, or two at once. Only where the sender is known: what gives just that has
   * said nothing of a client.
   */
  #contradicts (fd: number, sender: Endpoint, claim: Claim | undefined): boolean {
    for (const witness of this.#witnesses) {
      if (witness.name === claim?.course.source) continue
      const reason = witness.read(fd, this.#endpoint)
      if (reason === 'ambiguous') return true
      if (reason !== undefined || claim === undefined || sameEndpoint(this.#endpoint, claim)) continue
      if (!sameEndpoint(this.#endpoint, sender) && !sameEndpoint(claim, sender)) return true
    }
    return false
  }

  /** Looks for the transport peer another way, which may take until later. */
  #search (socket: object, fd: number, evidence: Checked): Checked {
    if (this.#peers === undefined) return evidence
    let later = false
    evidence.pending = true
    this.#peers.ask(fd, (peer, port) => {
      evidence.peer = peer
      evidence.peerPort = port
      evidence.pending = false
      evidence.policy = undefined
      if (later) {
        if (this.#refuses(evidence)) this.#reject(socket)
        this.announce(socket, evidence)
      }
      const resume = this.#waiting.get(evidence)
      this.#waiting.delete(evidence)
      resume?.forEach((next) => next())
    })
    later = true
    return evidence
  }

  #reject (socket: object): void {
    this.counters.rejected++
    reset(socket)
  }

  /** Counts a new connection and tells those who listen, once it is known who sent it: that may take until later. */
  announce (socket: object, evidence: Evidence): void {
    if (isPending(evidence)) return
    if (evidence instanceof Checked) {
      const cell = this.#judge(evidence)
      this.counters.count(sourceOf(evidence, cell, this.#believes), cell.trust, reasonOf(evidence, cell))
    } else if (isClaim(evidence)) {
      this.counters.count(evidence.course.source, 'unchecked', undefined)
    } else {
      const { source, trust, reason } = evidence.realAddress
      this.counters.count(source, trust, reason)
    }
    if (connectionChannel.hasSubscribers) {
      connectionChannel.publish({ socket, realAddress: this.answer(evidence) } as ConnectionMessage)
    }
  }

  /** What is to be said of a connection that no server of this plugin handed over. */
  examineUnobserved (found: Fallback, injected: boolean): Evidence {
    if (!this.hasPolicy) return found
    const evidence = new Checked(found)
    // Whoever calls inject() plays the network, and says who sends.
    const address = injected ? parseAddress(found.realAddress.address ?? '') : undefined
    if (address !== undefined) evidence.peer = peerAddress(address)
    return evidence
  }

  /** Calls `next` when it is known who sent the packets: at once, but for connections whose search goes on. */
  whenKnown (evidence: Evidence | undefined, next: () => void): void {
    if (!(evidence instanceof Checked) || !evidence.pending) return next()
    // It goes on in its own asynchronous context, and not in that of the connection which settled the search.
    const resume = AsyncResource.bind(next)
    this.#waiting.set(evidence, [...this.#waiting.get(evidence) ?? [], resume])
  }

  /** Whether a live connection is still allowed, by the policy of the moment. */
  allows (evidence: Evidence): boolean {
    if (!(evidence instanceof Checked)) return true
    this.#judge(evidence)
    return !(evidence.decided ? evidence.refused : this.#refuses(evidence))
  }

  /** The answer for a connection, by the policy of the moment. */
  answer (evidence: Evidence): RealAddress {
    if (!(evidence instanceof Checked)) return evidence.realAddress
    const cell = this.#judge(evidence)
    return evidence.realAddress ??= answerOf(evidence, cell, this.#believes)
  }

  /** Whether a walk through a forwarding header may start at the connection's answer. */
  forwards (evidence: Evidence): boolean {
    return evidence instanceof Checked && this.#judge(evidence).forwards === true
  }

  #judge (evidence: Checked): Cell {
    if (evidence.policy === this.#policy) return evidence.cell as Cell
    const { claim, peer, peerPort } = evidence
    const policy = this.#policy
    const row = policy.rowOf(peer, peerPort)
    const column = evidence.ambiguous ? 'invalid' : columnOf(asClaim(claim), peer, peerPort)
    if (column !== 'absent' && peer !== undefined) this.rewritten = true
    if (row === 'unlisted' && this.#firstUntrusted) {
      this.#firstUntrusted = false
      if (isThisHost(peer as PeerAddress)) this.#warnings.warn('SIDECAR')
    }
    evidence.policy = policy
    evidence.realAddress = undefined
    evidence.decided = false
    return evidence.cell = table[row][column]
  }

  /** Decides whether a connection is to be closed. */
  #refuses (evidence: Evidence): boolean {
    if (!(evidence instanceof Checked)) return !this.#admits(evidence)
    // Decided once it is known, before any request of the connection is handled.
    if (evidence.pending) return false
    const { setting } = this.#judge(evidence)
    evidence.decided = true
    if (setting !== undefined && this.#options.settings[setting] === 'reject') return evidence.refused = true
    if (this.#options.admit === undefined || evidence.asked === this.answer(evidence).address) return evidence.refused
    return evidence.refused = !this.#admits(evidence)
  }

  #admits (evidence: Evidence): boolean {
    const { admit } = this.#options
    if (admit === undefined) return true
    const realAddress = this.answer(evidence)
    if (evidence instanceof Checked) evidence.asked = realAddress.address
    return isTrue(admit, realAddress, 'admit', this.#logError)
  }

  #sample (fd: number, claim: Claim): void {
    this.rewritten = true
    if (this.#claims++ % SAMPLED === 0 && this.#peers?.disagrees(fd, claim) === true) this.#warnings.warn('DISAGREE')
  }

  readonly #logError = (message: string, error?: unknown): void => {
    const now = performance.now()
    if (now - this.#errorAt < ERROR_INTERVAL) return
    this.#errorAt = now
    this.#log.error({ err: error }, `fastify-real-ip: ${message}`)
  }
}

function isThisHost (peer: PeerAddress): boolean {
  try {
    return isLoopback(peer) || Object.values(networkInterfaces()).flat().some((own) => {
      const address = own && parseAddress(own.address)
      return address !== undefined && sameAddress(address, peer)
    })
  } catch {
    // No descriptor is left to ask the kernel by, say.
    return false
  }
}
