import type { Attempt, ProxyFaultReason, RealAddress } from '../../types'
import { parseAddress } from '../address/address'
import { copyEndpoint, createEndpoint, type Endpoint, keepEndpoint, sameEndpoint } from '../kernel/sockaddr'
import type { KernelAccess } from '../sources/choose'
import { type ClaimSource, Course } from '../sources/course'
import type { ProxyHeader } from '../sources/proxy-header'
import { Checked, type Details, type Evidence } from './checked'
import { Claim, Fallback, readFallback } from './claim'
import { isLoopback, isPlausible } from './plausible'
import type { Suspicions } from './suspicions'

/** Who sent the packets; `null`: cannot be known; `undefined`: was not looked for. */
export type Sender = Endpoint | null | undefined

const proxyProtocol = new Course(['proxy-protocol'])

/** The options that the guard needs. */
export interface Checks {
  readonly hasPolicy: boolean
  readonly canRefuse: boolean
  /** Whether Node.js's remote address is the transport peer's, because no kernel module can rewrite it. */
  readonly trustsRemote: boolean
}

/** Examines connections: who sent the packets, and what the sources claim. Decides nothing. */
export class Guard {
  readonly #kernel: KernelAccess | undefined
  readonly #hasPolicy: boolean
  readonly #isJudged: boolean
  readonly #trustsRemote: boolean
  readonly #suspicions: Suspicions
  // Reused for each connection: 72 bytes each.
  readonly #sender = createEndpoint()
  readonly #claim = createEndpoint()
  readonly #other = createEndpoint()

  /** Without `kernel` there are no system calls: connections have only their remote address. */
  constructor (
    kernel: KernelAccess | undefined, { hasPolicy, canRefuse, trustsRemote }: Checks, suspicions: Suspicions
  ) {
    this.#kernel = kernel
    this.#hasPolicy = hasPolicy
    this.#isJudged = canRefuse || kernel?.readVirtualServer !== undefined
    this.#trustsRemote = trustsRemote
    this.#suspicions = suspicions
  }

  /** Reads the sender of a new connection from its saved SYN, if there is a policy. Valid until the next call. */
  readSender (fd: number): Sender {
    const kernel = this.#kernel
    if (kernel === undefined || fd < 0) return null
    if (!this.#hasPolicy) return undefined
    if (kernel.senders.syn.read(fd, this.#sender)) return this.#sender
    if (kernel.senders.isArmed) this.#suspicions.emptySyn()
    return undefined
  }

  /**
   * What is known of a connection; `undefined` if sock_diag has to find its sender first. `sender` comes from
   * readSender(), or from sock_diag: then the SYN that was read last belongs to another connection.
   */
  examine (socket: object, fd: number, sender: Sender, isUnix = false): Evidence | undefined {
    const kernel = this.#kernel
    if (kernel === undefined || fd < 0) {
      const found = this.#readRemote(socket)
      return this.#record(found, this.#trustsRemote && !isUnix ? endpointOf(found) : undefined, { isUnix })
    }
    if (sender !== this.#sender) kernel.senders.syn.forget()
    return this.#hasPolicy ? this.#check(kernel, socket, fd, sender) : this.#believe(kernel, socket, fd, sender)
  }

  /** What is known of a connection by its PROXY header, or by the fault of that header. */
  examineHeader (sender: Sender, isUnix: boolean, header: ProxyHeader | ProxyFaultReason): Evidence {
    const peer = sender == null ? undefined : keepEndpoint(sender)
    if (typeof header === 'string') {
      return new Checked(new Fallback(undefined, undefined, header), peer, { isUnix, column: 'fault' })
    }
    const { source } = header
    const namesNobody = source === undefined || (peer !== undefined && sameEndpoint(source, peer))
    if (namesNobody) {
      return new Checked(new Fallback(undefined, undefined, 'no-address'), peer, { isUnix, header, column: 'local' })
    }
    return new Checked(new Claim(source, proxyProtocol), peer, { isUnix, header })
  }

  /**
   * A connection or request that no server of the plugin accepted. `isInjected`: made by inject(); `staged`: a test's
   * client.
   */
  examineUnobserved (socket: unknown, isInjected: boolean, staged?: RealAddress): Evidence {
    const found = readFallback(socket, isInjected ? 'injected' : 'unobserved')
    // The caller of inject() plays the network and names the sender.
    if (staged !== undefined) return new Checked(found, undefined, { isInjected, staged })
    return this.#record(found, isInjected && this.#hasPolicy ? endpointOf(found) : undefined, { isInjected })
  }

  /** With a policy. */
  #check (kernel: KernelAccess, socket: object, fd: number, sender: Sender): Evidence | undefined {
    if (sender === undefined) return undefined
    const peer = sender ?? undefined
    const claim = this.#claim
    const course = kernel.resolve(fd, claim, peer)
    const { source } = course
    const details = this.#readDetails(fd)
    if (source === undefined) {
      if (peer === undefined) return this.#record(readNoAnswer(socket, course.attempts), peer, details)
      copyEndpoint(peer, claim)
    } else if (source === 'vtoa') {
      this.#suspicions.sample(kernel.senders.search, fd, claim)
    }
    const found = new Claim(claim, course)
    if (peer === undefined) return this.#record(found, peer, details)
    const isAmbiguous = kernel.witnesses.length > 0 && this.#contradicts(kernel, fd, peer, source)
    const evidence = new Checked(found, keepEndpoint(peer), isAmbiguous ? { ...details, column: 'ambiguous' } : details)
    if (evidence.column !== 'absent') this.#suspicions.rewritten()
    return evidence
  }

  /** Without a policy: every plausible claim is believed. */
  #believe (kernel: KernelAccess, socket: object, fd: number, sender: Sender): Evidence | undefined {
    const claim = this.#claim
    const course = kernel.resolve(fd, claim, undefined)
    const { source } = course
    if (source === undefined) {
      return this.#record(readNoAnswer(socket, course.attempts), undefined, this.#readDetails(fd))
    }
    if (source === 'vtoa') this.#suspicions.sample(kernel.senders.search, fd, claim)
    const found = new Claim(claim, course)
    if (isPlausible(claim, undefined) || this.#isOwnLoopback(kernel, fd, found)) return this.#recordBelieved(found, fd)
    if (sender === undefined) return undefined
    return new Checked(found, sender === null ? undefined : keepEndpoint(sender), this.#readDetails(fd))
  }

  #recordBelieved (found: Claim, fd: number): Evidence {
    return this.#isJudged ? new Checked(found, undefined, { ...this.#readDetails(fd), column: 'plausible' }) : found
  }

  #record (found: Claim | Fallback, peer: Endpoint | undefined, details: Details | undefined): Evidence {
    return this.#isJudged ? new Checked(found, peer, details) : found
  }

  #readDetails (fd: number): Details | undefined {
    const virtualServer = this.#kernel?.readVirtualServer?.(fd)
    return virtualServer && { virtualServer }
  }

  #readRemote (socket: { readonly destroyed?: unknown }): Fallback {
    // A destroyed socket has no descriptor.
    if (socket.destroyed === true) return readFallback(socket, 'closed')
    return readFallback(socket, this.#kernel === undefined ? 'native-unavailable' : 'no-fd')
  }

  /**
   * Whether a witness claims another client, or two. Only if the sender is known: a witness that returns the sender
   * claims nothing. The claim is in #claim.
   */
  #contradicts (kernel: KernelAccess, fd: number, sender: Endpoint, source: ClaimSource | undefined): boolean {
    const claim = this.#claim
    const other = this.#other
    for (const witness of kernel.witnesses) {
      if (witness.name === source) continue
      const reason = witness.read(fd, other)
      if (reason === 'ambiguous') return true
      if (reason !== undefined || sameEndpoint(other, claim)) continue
      if (!sameEndpoint(other, sender) && !sameEndpoint(claim, sender)) return true
    }
    return false
  }

  /** Packets from loopback to loopback cannot come from another host. */
  #isOwnLoopback (kernel: KernelAccess, fd: number, claim: Claim): boolean {
    return isLoopback(claim) && kernel.readLocal(fd, this.#other) && isLoopback(this.#other)
  }
}

function endpointOf ({ address, realAddress: { port } }: Fallback): Endpoint | undefined {
  const parsed = address === undefined ? undefined : parseAddress(address)
  return parsed && { ...parsed, port: port ?? 0 }
}

function readNoAnswer (socket: object, attempts: ReadonlyArray<Attempt>): Fallback {
  // The client reset the connection before it was accepted.
  const isClosed = attempts.some(({ reason }) => reason === 'ENOTCONN')
  return readFallback(socket, isClosed ? 'closed' : 'no-answer', attempts)
}
