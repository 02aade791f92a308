import type { Server, Socket } from 'node:net'
import { constants } from 'node:os'
import type { Senders } from '../sources/choose'
import type { Sender } from '../trust/guard'
import { Checked, type Evidence, isChecked } from '../trust/checked'
import { keepEndpoint } from '../trust/claim'
import { reasonOf, sourceOf } from '../trust/verdict'
import type { Remembered } from '../node/remembered'
import { acceptedSocket, fdOf, isUnixListener, pipeFdOf, reset, startReading, stopReading } from '../node/sockets'
import { type Held, Hold } from './hold'
import type { Owners } from './owners'
import { awaitHeader, type HeaderOutcome, type HeaderPolicy, takeHeader } from './proxy-headers'

const { EAGAIN } = constants.errno
// A search takes as long as a dump of sock_diag, and begins within 200 ms.
const SENDER_TIMEOUT = 5000 // milliseconds

type HandOver = (socket: object) => void

/**
 * The way of each connection, before any listener sees it: sender, claim, ruling, remember, count. Then it is
 * handed over to the listeners, or reset. A connection that has to wait is held.
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

  /** Whether the event goes on to the listeners now. Never throws: a connection that cannot be examined is reset. */
  accept (socket: object, server: Server, handOver: HandOver): boolean {
    try {
      const key = acceptedSocket(socket) as object
      // Handed over a second time: a saved SYN can be read once, and what was found stands.
      if (this.#remembered.of(key) !== undefined) return (socket as Socket).destroyed !== true
      if (this.#held.has(key)) return false
      const fd = fdOf(socket)
      const isUnix = fd < 0 && pipeFdOf(socket) >= 0 && isUnixListener(server)
      return this.#receive(socket, fd, this.#owners.current.guard.readSender(fd), isUnix, handOver)
    } catch (error) {
      return this.#fail(socket, error)
    }
  }

  /** Goes on with a connection whose sender is known, or cannot be, or was not looked for yet. */
  #receive (socket: object, fd: number, sender: Sender, isUnix: boolean, handOver: HandOver): boolean {
    const headers = sender === undefined ? undefined : this.#headersFrom(sender, isUnix)
    if (headers !== undefined) return this.#readHeader(socket, fd, sender, isUnix, headers, handOver)
    const evidence = this.#owners.current.guard.examine(socket, fd, sender, isUnix)
    if (evidence === undefined) return this.#findSender(socket, fd, handOver)
    return this.#decide(socket, evidence)
  }

  #decide (socket: object, found: Evidence): boolean {
    const evidence = isChecked(found) && this.#mayClaim(found) ? asClaim(found) : found
    this.#remembered.set(acceptedSocket(socket) as object, evidence)
    const { judge, tally, suspicions } = this.#owners.current
    if (!isChecked(evidence)) {
      const reason = evidence.course === undefined ? evidence.reason : undefined
      tally.count(evidence.source, 'unchecked', reason, false)
      if (tally.hasSubscribers) tally.publish(socket, evidence.realAddress)
      return true
    }
    const ruling = judge.rule(evidence)
    const isAllowed = judge.decide(evidence) !== undefined
    const reason = reasonOf(evidence, ruling)
    if (!isAllowed) reset(socket)
    tally.count(sourceOf(evidence, ruling), ruling.trust, reason, !isAllowed)
    suspicions.ruled(evidence, ruling.trust, reason)
    if (tally.hasSubscribers) tally.publish(socket, judge.answer(evidence))
    return isAllowed
  }

  /** Whether a stranger is refused unread: the bytes may be a header, which claims a client. */
  #mayClaim (evidence: Checked): boolean {
    const { headers, judge, options } = this.#owners.current
    if (headers === undefined || options.settings.untrusted !== 'reject' || evidence.isUnix) return false
    const { trust, rejects } = judge.rule(evidence)
    return trust === 'untrusted' && !rejects
  }

  /** Undefined where no header is expected from the sender. */
  #headersFrom (sender: Sender, isUnix: boolean): HeaderPolicy | undefined {
    const { headers } = this.#owners.current
    return headers?.expects(sender ?? undefined, isUnix) === true ? headers : undefined
  }

  /** Holds the connection where not all of its header has come. */
  #readHeader (
    socket: object, fd: number, sender: Sender, isUnix: boolean, headers: HeaderPolicy, handOver: HandOver
  ): boolean {
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
      this.#goOn(socket, handOver, () => this.#takeAwaited(socket as Socket, peer, isUnix, outcome, read))
    })
    return false
  }

  #takeAwaited (socket: Socket, sender: Sender, isUnix: boolean, outcome: HeaderOutcome, read: Buffer): boolean {
    const { guard } = this.#owners.current
    // The list may have been swapped meanwhile: then these bytes are a stranger's, who sends no header.
    const headers = this.#headersFrom(sender, isUnix)
    headers?.look?.(socket, read)
    const rest = headers !== undefined && typeof outcome === 'object' ? read.subarray(outcome.length) : read
    const evidence = headers !== undefined
      ? guard.examineHeader(sender, isUnix, outcome)
      : guard.examine(socket, fdOf(socket), sender, isUnix) as Evidence
    if (!this.#decide(socket, evidence) || socket.destroyed) return false
    if (rest.length > 0) socket.unshift(rest)
    return true
  }

  /** Holds the connection where the search does not end at once. */
  #findSender (socket: object, fd: number, handOver: HandOver): boolean {
    const { search } = this.#owners.senders as Senders
    let sender: Sender
    const waiting: { held?: Held | undefined } = {}
    const goOn = (): void => {
      this.#goOn(socket, handOver, () => this.#receiveAwaited(socket, sender ?? null, handOver))
    }
    search.ask(fd, (peer) => {
      sender = peer === undefined ? null : keepEndpoint(peer)
      waiting.held?.release(goOn)
    })
    if (sender !== undefined) return this.#receive(socket, fd, sender, false, handOver)
    stopReading(socket)
    this.#held.add(acceptedSocket(socket) as object)
    waiting.held = this.#hold.take(socket, SENDER_TIMEOUT, goOn)
    return false
  }

  #receiveAwaited (socket: object, sender: Sender, handOver: HandOver): boolean {
    const fd = fdOf(socket)
    const isGone = this.#isGone(fd)
    if (isGone) reset(socket)
    if (!this.#receive(socket, isGone ? -1 : fd, sender, false, handOver) || isGone) return false
    startReading(socket)
    return true
  }

  /** Goes on with a connection that was held: `step` says whether it is handed over. */
  #goOn (socket: object, handOver: HandOver, step: () => boolean): void {
    this.#held.delete(acceptedSocket(socket) as object)
    let goesOn = false
    try {
      goesOn = step()
    } catch (error) {
      this.#fail(socket, error)
    }
    if (goesOn) handOver(socket)
  }

  /** Whether the client has ended the connection, or reset it, without a word. A closed descriptor is EBADF. */
  #isGone (fd: number): boolean {
    const { libc } = this.#owners.senders as Senders
    const waiting = libc.peek(fd)
    return waiting === 0 || (waiting < 0 && waiting !== -EAGAIN)
  }

  #fail (socket: object, error: unknown): false {
    this.#owners.current.warnings.error('a connection could not be examined and was reset', error)
    reset(socket)
    return false
  }

  /** Resets what is held; nothing is held from now on. */
  close (): void {
    this.#hold.close()
  }

  open (): void {
    this.#hold.open()
  }
}

/** What a stranger claims without having been read. */
const asClaim = ({ claim, peer }: Checked): Checked => new Checked(claim, peer, { column: 'plausible' })
