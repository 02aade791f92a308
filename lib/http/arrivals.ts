import type { Server, Socket } from 'node:net'
import { constants } from 'node:os'
import { keepEndpoint } from '../kernel/sockaddr'
import type { Senders } from '../sources/choose'
import type { Sender } from '../trust/guard'
import { type Evidence, isChecked } from '../trust/checked'
import { reasonOf, sourceOf } from '../trust/verdict'
import type { Remembered } from '../node/remembered'
import {
  acceptedSocket, fdOf, hasServer, isUnixListener, keepBytes, pipeFdOf, reset, startReading, stopReading
} from '../node/sockets'
import { type Held, Hold } from './hold'
import type { Owners } from './owners'
import { awaitHeader, type HeaderOutcome, type HeaderPolicy, takeHeader } from './proxy-headers'

const { EAGAIN } = constants.errno
// A search takes as long as a dump of sock_diag, and begins within 200 ms.
const SENDER_TIMEOUT = 5000 // milliseconds

type HandOver = (socket: object) => void
type Outcome = 'allowed' | 'refused' | 'held'

/**
 * The steps for each connection, before any listener sees it: sender, header, claim, remember, ruling, count. Then it
 * is handed over or reset. A connection that has to wait is held.
 */
export class Arrivals {
  readonly #owners: Owners
  readonly #remembered: Remembered<Evidence>
  readonly #hold = new Hold()
  readonly #held = new WeakSet<object>()

  constructor (owners: Owners, remembered: Remembered<Evidence>) {
    this.#owners = owners
    this.#remembered = remembered
  }

  /**
   * Returns true to emit the event to the listeners now. Never throws: a connection that cannot be examined is reset.
   */
  accept (socket: object, server: Server, handOver: HandOver): boolean {
    try {
      return this.#begin(socket, server, handOver) === 'allowed'
    } catch (error) {
      this.#fail(socket, error)
      return false
    }
  }

  #begin (socket: object, server: Server, handOver: HandOver): Outcome {
    const key = acceptedSocket(socket) as object
    const found = this.#remembered.of(key)
    if (found !== undefined) return this.#decideAgain(socket, found)
    if (this.#held.has(key)) return 'held'
    const fd = fdOf(socket)
    const isUnix = fd < 0 && pipeFdOf(socket) >= 0 && isUnixListener(server)
    return this.#receive(socket, fd, this.#owners.current.guard.readSender(fd), isUnix, handOver)
  }

  /**
   * A connection that is handed over again keeps its evidence: a saved SYN can be read only once. It is not counted
   * again.
   */
  #decideAgain (socket: object, found: Evidence): Outcome {
    if ((socket as Socket).destroyed === true) return 'refused'
    const { judge } = this.#owners.current
    const evidence = judge.adopt(found)
    if (!isChecked(evidence) || judge.decide(evidence) !== undefined) return 'allowed'
    refuse(socket)
    return 'refused'
  }

  /** Continues when the sender is known, cannot be known, or was not looked for. */
  #receive (socket: object, fd: number, sender: Sender, isUnix: boolean, handOver: HandOver): Outcome {
    const headers = sender === undefined ? undefined : this.#headersFrom(sender, isUnix)
    if (headers !== undefined) return this.#readHeader(socket, fd, sender, isUnix, headers, handOver)
    const evidence = this.#owners.current.guard.examine(socket, fd, sender, isUnix)
    if (evidence === undefined) return this.#findSender(socket, fd, handOver)
    return this.#decide(socket, evidence)
  }

  #decide (socket: object, evidence: Evidence): Outcome {
    this.#remembered.set(acceptedSocket(socket) as object, evidence)
    const { judge, tally, suspicions } = this.#owners.current
    if (!isChecked(evidence)) {
      const reason = evidence.course === undefined ? evidence.reason : undefined
      tally.count(evidence.source, 'unchecked', reason, false)
      if (tally.hasSubscribers) tally.publish(socket, evidence.realAddress)
      return 'allowed'
    }
    const ruling = judge.rule(evidence)
    const isAllowed = judge.decide(evidence) !== undefined
    if (!isAllowed) refuse(socket)
    const reason = reasonOf(evidence, ruling)
    tally.count(sourceOf(evidence, ruling), ruling.trust, reason, !isAllowed)
    suspicions.ruled(evidence, ruling.trust, reason)
    if (tally.hasSubscribers) tally.publish(socket, judge.answer(evidence))
    return isAllowed ? 'allowed' : 'refused'
  }

  /** The policy for the sender's header; `undefined` if none is expected. */
  #headersFrom (sender: Sender, isUnix: boolean): HeaderPolicy | undefined {
    const { headers } = this.#owners.current
    return headers?.expects(sender ?? undefined, isUnix) === true ? headers : undefined
  }

  /** Takes the header, or holds the connection until the header is complete. */
  #readHeader (
    socket: object, fd: number, sender: Sender, isUnix: boolean, headers: HeaderPolicy, handOver: HandOver
  ): Outcome {
    const libc = this.#owners.senders?.libc
    const at = isUnix ? pipeFdOf(socket) : fd
    const isUnread = at >= 0 && (socket as Socket).readableLength === 0
    const look = headers.look && ((bytes: Uint8Array) => { headers.look?.(socket, bytes) })
    const outcome = libc !== undefined && isUnread ? takeHeader(libc, at, look) : undefined
    if (outcome !== undefined) {
      return this.#decide(socket, this.#owners.current.guard.examineHeader(sender, isUnix, outcome))
    }
    const peer = sender === null || sender === undefined ? null : keepEndpoint(sender)
    this.#held.add(acceptedSocket(socket) as object)
    awaitHeader(socket as Socket, this.#hold, headers.timeout, (outcome, read) => {
      this.#resume(socket, handOver, () => this.#takeAwaited(socket as Socket, peer, isUnix, outcome, read))
    })
    return 'held'
  }

  #takeAwaited (socket: Socket, sender: Sender, isUnix: boolean, outcome: HeaderOutcome, read: Buffer): Outcome {
    const { guard } = this.#owners.current
    // The list may have been replaced: no header is then expected from this peer.
    const headers = this.#headersFrom(sender, isUnix)
    headers?.look?.(socket, read)
    // HTTP would never learn of the end, and no bytes can be put back after it.
    if (headers === undefined && socket.readableEnded) reset(socket)
    const rest = headers !== undefined && typeof outcome === 'object' ? read.subarray(outcome.length) : read
    const evidence = headers !== undefined
      ? guard.examineHeader(sender, isUnix, outcome)
      : guard.examine(socket, fdOf(socket), sender, isUnix) as Evidence
    if (this.#decide(socket, evidence) === 'refused' || socket.destroyed) return 'refused'
    if (rest.length > 0) socket.unshift(rest)
    return 'allowed'
  }

  /** Looks up the sender with sock_diag; holds the connection if the result is not immediate. */
  #findSender (socket: object, fd: number, handOver: HandOver): Outcome {
    const { search } = this.#owners.senders as Senders
    let sender: Sender
    const waiting: { held?: Held | undefined } = {}
    const resume = (): void => {
      giveBack()
      this.#resume(socket, handOver, () => this.#receiveAwaited(socket as Socket, sender ?? null, handOver))
    }
    const release = (): void => { waiting.held?.release(resume) }
    search.ask(fd, (peer) => {
      sender = peer === undefined ? null : keepEndpoint(peer)
      release()
    })
    if (sender !== undefined) return this.#receive(socket, fd, sender, false, handOver)
    stopReading(socket)
    const giveBack = keepBytes(socket as Socket, release)
    this.#held.add(acceptedSocket(socket) as object)
    waiting.held = this.#hold.take(socket, SENDER_TIMEOUT, resume)
    return 'held'
  }

  #receiveAwaited (socket: Socket, sender: Sender, handOver: HandOver): Outcome {
    const fd = fdOf(socket)
    const isGone = socket.destroyed || (socket.readableLength === 0 && this.#isGone(fd))
    if (isGone) reset(socket)
    const outcome = this.#receive(socket, isGone ? -1 : fd, sender, false, handOver)
    if (isGone) return 'refused'
    if (outcome === 'allowed') startReading(socket)
    return outcome
  }

  /** Continues with a held connection. */
  #resume (socket: object, handOver: HandOver, step: () => Outcome): void {
    this.#held.delete(acceptedSocket(socket) as object)
    let outcome: Outcome = 'refused'
    try {
      outcome = step()
    } catch (error) {
      this.#fail(socket, error)
    }
    if (outcome === 'allowed') handOver(socket)
  }

  /** Whether the client closed or reset the connection without sending data. A closed descriptor gives EBADF. */
  #isGone (fd: number): boolean {
    const { libc } = this.#owners.senders as Senders
    const waiting = libc.peek(fd)
    return waiting === 0 || (waiting < 0 && waiting !== -EAGAIN)
  }

  #fail (socket: object, error: unknown): void {
    refuse(socket)
    this.#owners.current.warnings.error('a connection could not be examined and was reset', error)
  }

  /** Resets all held connections, and later ones at once. */
  close (): void {
    this.#hold.close()
  }

  open (): void {
    this.#hold.open()
  }
}

/**
 * Resets a connection. One that another process handed over is reset in the next tick: the code that emitted it, e.g.
 * socket.io-sticky, may still use its handle.
 */
function refuse (socket: object): void {
  if (hasServer(socket)) reset(socket)
  else process.nextTick(reset, socket)
}
