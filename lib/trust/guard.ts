import { AsyncResource } from 'node:async_hooks'
import { networkInterfaces } from 'node:os'
import type { FastifyBaseLogger } from 'fastify'
import type { ConnectionMessage, KernelSource, RealAddress, TrustedPeers } from '../../types'
import { parseAddress, sameAddress } from '../address/address'
import { readPeer, reset } from '../node/sockets'
import { Checked, type Claim, claimOf, type Course, type Evidence, type Fallback } from './evidence'
import { checkList, checkTrustedPeers, type Options } from '../options/options'
import { createPolicy, isTrue, type Policy } from './policy'
import type { Resolve } from '../sources/resolve'
import { copyEndpoint, createEndpoint, type Endpoint, sameEndpoint } from '../kernel/sockaddr'
import type { Source } from '../sources/source'
import { connectionChannel, Counters, type Outcome } from './tally'
import { peerAddress, type PeerAddress, type TransportPeers } from '../kernel/peer-search'
import { applySettings, columnOf, isLoopback, isPlausible, type Ruling, rulingOf } from './table'
import { answerOf, reasonOf, sourceOf } from './verdict'
import type { VirtualServerReader } from '../kernel/virtual-server'
import { safely, type Warnings } from '../warnings'

const ERROR_INTERVAL = 1000
const SAMPLED = 1024

/** What the guard has of the kernel. */
export interface Kernel {
  readonly peers: TransportPeers
  readonly resolve: Resolve
  /** Sources that must not contradict the one that answers. */
  readonly witnesses: ReadonlyArray<Source>
  readonly readVirtualServer: VirtualServerReader | undefined
}

/** Checks what the sources claim against the transport peer, and closes the connections that are not wanted. */
export class Guard {
  // First what every new connection needs, so that it lies together.
  readonly #kernel: Kernel | undefined
  /** Whether a policy was given; without one the transport peer is looked for only where a claim cannot be true. */
  readonly hasPolicy: boolean
  readonly #takesAll: boolean
  readonly #claim = createEndpoint()
  // What the last connection was counted as, and why: mostly the next one is too.
  #outcome: Outcome
  #course: Course | undefined
  #ruling: Ruling | undefined
  readonly #sender = createEndpoint()
  readonly #table: ReturnType<typeof applySettings>
  #policy: Policy
  readonly #options: Options
  #rewritten = false
  #firstUntrusted = true
  readonly counters = new Counters()
  readonly #log: FastifyBaseLogger
  readonly #warnings: Warnings
  readonly #trustProxy: boolean
  readonly #endpoint = createEndpoint()
  readonly #waiting = new Map<Checked, Array<() => void>>()
  #claims = 0
  #errorAt = -Infinity

  /**
   * `kernel` is undefined where the system calls cannot be made: connections have their remote address alone.
   * `trustProxy` is whether Fastify's own is set.
   */
  constructor (options: Options, kernel: Kernel | undefined, log: FastifyBaseLogger, warnings: Warnings, trustProxy: boolean) {
    this.#options = options
    this.#kernel = kernel
    this.#log = log
    this.#warnings = warnings
    this.#trustProxy = trustProxy
    this.#outcome = this.counters.of('none', 'unchecked', undefined)
    this.hasPolicy = options.trustedPeers !== undefined
    this.#takesAll = !this.hasPolicy && options.admit === undefined && !options.virtualServer
    this.#table = applySettings(options.settings)
    this.#policy = createPolicy(options.trustedPeers, this.#table, this.#logError)
  }

  /** Swaps the policy at once. Throws FST_REAL_IP_INVALID_OPTION, and then nothing has changed. */
  setTrustedPeers (trustedPeers: TrustedPeers): void {
    if (this.#options.toa !== undefined) checkList(trustedPeers)
    this.#policy = createPolicy(checkTrustedPeers(trustedPeers), this.#table, this.#logError)
  }

  /**
   * Looks at a new connection: who sent its SYN, where there is a policy, before any source is asked; what the sources
   * say; and whether it is wanted: it is reset where it is not.
   */
  examine (socket: object, fd: number): Evidence {
    const kernel = this.#kernel
    if (kernel === undefined || fd < 0) return this.#settle(socket, fd, this.#readPeer(socket))
    if (this.hasPolicy) return this.#check(kernel, socket, fd)
    const claim = this.#claim
    const course = kernel.resolve(fd, claim, undefined)
    const { source } = course
    if (source === undefined || !this.#takesAll || !isPlausible(claim, undefined)) return this.#settleCourse(kernel, socket, fd, course)
    const found = claimOf(claim, course)
    if (source === 'vtoa') this.#sample(kernel, fd, claim)
    return found
  }

  #check (kernel: Kernel, socket: object, fd: number): Evidence {
    const sender = this.#readSender(kernel, fd) ? this.#sender : undefined
    const claim = this.#claim
    const course = kernel.resolve(fd, claim, sender)
    if (sender === undefined) return this.#settleCourse(kernel, socket, fd, course)
    const { source } = course
    if (source === undefined) copyEndpoint(sender, claim)
    const evidence = new Checked(claimOf(claim, course), 'absent')
    if (kernel.witnesses.length > 0) evidence.ambiguous = this.#contradicts(kernel, fd, sender, source)
    this.#setPeer(evidence, claim, peerAddress(sender), sender.port)
    if (source === 'vtoa') this.#sample(kernel, fd, claim)
    return this.#finish(socket, fd, evidence)
  }

  #readSender (kernel: Kernel, fd: number): boolean {
    if (kernel.peers.readSavedSyn(fd, this.#sender)) return true
    if (kernel.peers.armed) this.#warnings.warn('EMPTY_SYN')
    return false
  }

  #readPeer (socket: { readonly destroyed?: unknown }): Fallback {
    // A destroyed socket has no descriptor left.
    if (socket.destroyed === true) return readPeer(socket, 'closed')
    return readPeer(socket, this.#kernel === undefined ? 'native-unavailable' : 'no-fd')
  }

  /** Goes on with what the sources said where it is not known who sent the SYN; the claim is in #claim. */
  #settleCourse (kernel: Kernel, socket: object, fd: number, course: Course): Evidence {
    const { source } = course
    const found = source === undefined ? readPeer(socket, 'no-answer', course.attempts) : claimOf(this.#claim, course)
    if (source === 'vtoa') this.#sample(kernel, fd, this.#claim)
    return this.#settle(socket, fd, found)
  }

  /** Goes on with a connection of which it is not known who sent its SYN. */
  #settle (socket: object, fd: number, found: Claim | Fallback): Evidence {
    const claim = this.#asEndpoint(found)
    if (this.hasPolicy) {
      const evidence = new Checked(found, columnOf(claim, undefined, 0))
      if (fd >= 0) this.#search(socket, fd, evidence)
      return this.#finish(socket, fd, evidence)
    }
    if (claim === undefined || isPlausible(claim, undefined)) return this.#finish(socket, fd, found)
    const checked = this.#search(socket, fd, new Checked(found, 'invalid'))
    // A client of this host itself, say: what the source says is true.
    const isProven = this.judge(checked) === this.#table.unset.absent
    return this.#finish(socket, fd, isProven ? found : checked)
  }

  #finish (socket: object, fd: number, found: Evidence): Evidence {
    let evidence = found
    const readVirtualServer = this.#kernel?.readVirtualServer
    if (readVirtualServer !== undefined && fd >= 0) {
      if (!(evidence instanceof Checked)) evidence = new Checked(evidence, 'plausible')
      evidence.virtualServer = readVirtualServer(fd)
    }
    if (this.#isRefused(evidence)) this.#reject(socket)
    return evidence
  }

  /** The claim as an endpoint, until another connection is looked at. */
  #asEndpoint (found: Claim | Fallback): Endpoint | undefined {
    if (found.course === undefined) return undefined
    found.copyTo(this.#claim)
    return this.#claim
  }

  #setPeer (evidence: Checked, claim: Endpoint | undefined, peer: PeerAddress | undefined, port: number): void {
    evidence.peer = peer
    evidence.peerPort = port
    evidence.column = columnOf(claim, peer, port)
    if (peer !== undefined && evidence.column !== 'absent') this.#noteRewritten()
  }

  /**
   * Whether a witness claims another client, or two at once. Only where the sender is known: what gives just that has
   * said nothing of a client. The claim is in #claim.
   */
  #contradicts (kernel: Kernel, fd: number, sender: Endpoint, source: KernelSource | undefined): boolean {
    const claim = this.#claim
    for (const witness of kernel.witnesses) {
      if (witness.name === source) continue
      const reason = witness.read(fd, this.#endpoint)
      if (reason === 'ambiguous') return true
      if (reason !== undefined || sameEndpoint(this.#endpoint, claim)) continue
      if (!sameEndpoint(this.#endpoint, sender) && !sameEndpoint(claim, sender)) return true
    }
    return false
  }

  /** Looks for the transport peer another way, which may take until later. */
  #search (socket: object, fd: number, evidence: Checked): Checked {
    if (this.#kernel === undefined) return evidence
    let later = false
    evidence.pending = true
    this.#kernel.peers.ask(fd, (peer, port) => {
      evidence.pending = false
      evidence.policy = undefined
      this.#setPeer(evidence, this.#asEndpoint(evidence.claim), peer, port)
      if (later) {
        if (this.#isRefused(evidence)) this.#reject(socket)
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
    if (!(evidence instanceof Checked)) this.#count(evidence, evidence.course, undefined)
    else if (evidence.pending) return
    else this.#countChecked(evidence)
    if (connectionChannel.hasSubscribers) this.#publish(socket, evidence)
  }

  #countChecked (evidence: Checked): void {
    // Then the answer is not told by course and ruling alone.
    const course = evidence.ambiguous || evidence.peer === undefined ? undefined : evidence.course
    this.#count(evidence, course, this.judge(evidence))
  }

  #count (evidence: Evidence, course: Course | undefined, ruling: Ruling | undefined): void {
    if (course === undefined || course !== this.#course || ruling !== this.#ruling) {
      this.#outcome = this.#outcomeOf(evidence, ruling)
      this.#course = course
      this.#ruling = ruling
    }
    this.#outcome.connections++
  }

  #publish (socket: object, evidence: Evidence): void {
    connectionChannel.publish({ socket, realAddress: this.answer(evidence) } as ConnectionMessage)
  }

  #outcomeOf (evidence: Evidence, ruling: Ruling | undefined): Outcome {
    if (evidence instanceof Checked && ruling !== undefined) {
      return this.counters.of(sourceOf(evidence, ruling), ruling.trust, reasonOf(evidence, ruling))
    }
    if (evidence.course !== undefined) return this.counters.of(evidence.course.source as KernelSource, 'unchecked', undefined)
    const { source, trust, reason } = (evidence as Fallback).realAddress
    return this.counters.of(source, trust, reason)
  }

  /** What is to be said of a connection that no server of this plugin handed over. */
  examineUnobserved (found: Fallback, injected: boolean): Evidence {
    if (!this.hasPolicy) return found
    const evidence = new Checked(found, 'absent')
    // Whoever calls inject() plays the network, and says who sends.
    const address = injected ? parseAddress(found.realAddress.address ?? '') : undefined
    if (address !== undefined) evidence.peer = peerAddress(address)
    return evidence
  }

  /** Calls `next` when it is known who sent the packets: at once, but for connections whose search goes on. */
  whenKnown (evidence: Evidence, next: () => void): void {
    if (!(evidence instanceof Checked) || !evidence.pending) return next()
    // It goes on in its own asynchronous context, and not in that of the connection which settled the search.
    const resume = AsyncResource.bind(next)
    this.#waiting.set(evidence, [...this.#waiting.get(evidence) ?? [], resume])
  }

  /** What the policy of the moment makes of a live connection that is still allowed; undefined where it no longer is. */
  allows (evidence: Checked): Ruling | undefined {
    const ruling = this.judge(evidence)
    return this.#refuses(evidence, ruling) ? undefined : ruling
  }

  /** The answer for a connection, by the policy of the moment or by what that once was. */
  answer (evidence: Evidence, ruling?: Ruling): RealAddress {
    if (!(evidence instanceof Checked)) return evidence.realAddress
    const now = this.judge(evidence)
    if (ruling !== undefined && ruling !== now) return answerOf(evidence, ruling)
    return evidence.realAddress ??= answerOf(evidence, now)
  }

  /** What the policy of the moment makes of a connection. */
  judge (evidence: Checked): Ruling {
    if (evidence.policy === this.#policy) return evidence.ruling as Ruling
    const { peer, peerPort } = evidence
    const policy = this.#policy
    const rulings = policy.rulingsOf(peer, peerPort)
    if (rulings === this.#table.unlisted && this.#firstUntrusted) {
      this.#firstUntrusted = false
      if (isThisHost(peer as PeerAddress)) this.#warnings.warn('SIDECAR')
    }
    return evidence.judged(policy, rulingOf(rulings, evidence.ambiguous ? 'invalid' : evidence.column))
  }

  /** Whether a connection is to be closed; of one whose sender is looked for that is decided later, before any request. */
  #isRefused (evidence: Evidence): boolean {
    if (!(evidence instanceof Checked)) return !this.#admits(evidence.realAddress)
    return !evidence.pending && this.#refuses(evidence, this.judge(evidence))
  }

  /** Whether a connection is to be closed, by a ruling of the policy of the moment. */
  #refuses (evidence: Checked, ruling: Ruling): boolean {
    return evidence.refused = ruling.rejects || this.#isUnwanted(evidence, ruling)
  }

  #isUnwanted (evidence: Checked, ruling: Ruling): boolean {
    if (this.#options.admit === undefined) return evidence.refused
    const realAddress = this.answer(evidence, ruling)
    if (evidence.asked === realAddress.address) return evidence.refused
    evidence.asked = realAddress.address
    return !this.#admits(realAddress)
  }

  #admits (realAddress: RealAddress): boolean {
    const { admit } = this.#options
    return admit === undefined || isTrue(admit, realAddress, 'admit', this.#logError)
  }

  /** A claim differs from the transport peer: a module rewrites remote addresses, perhaps. */
  #noteRewritten (): void {
    if (this.#rewritten) return
    this.#rewritten = true
    if (this.#trustProxy) this.#warnings.warn('TRUST_PROXY')
  }

  #sample ({ peers }: Kernel, fd: number, claim: Endpoint): void {
    if (this.#claims++ % SAMPLED === 0) this.#compare(peers, fd, claim)
  }

  #compare (peers: TransportPeers, fd: number, claim: Endpoint): void {
    this.#noteRewritten()
    if (peers.disagrees(fd, claim)) this.#warnings.warn('DISAGREE')
  }

  readonly #logError = (message: string, error?: unknown): void => {
    const now = performance.now()
    if (now - this.#errorAt < ERROR_INTERVAL) return
    this.#errorAt = now
    safely(() => { this.#log.error({ err: error }, `fastify-real-ip: ${message}`) })
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
