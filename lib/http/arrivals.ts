import type { Server } from 'node:net'
import { constants } from 'node:os'
import type { Sender } from '../trust/guard'
import { type Evidence, isChecked } from '../trust/checked'
import { keepEndpoint } from '../trust/claim'
import { reasonOf, sourceOf } from '../trust/verdict'
import type { Remembered } from '../node/remembered'
import { acceptedSocket, fdOf, isUnixListener, pipeFdOf, reset, startReading, stopReading } from '../node/sockets'
import { type Held, Hold } from './hold'
import type { Owners } from './owners'

const { EAGAIN } = constants.errno
// A search takes as long as a dump of sock_diag, and begins within 200 ms.
const SENDER_TIMEOUT = 5000 // milliseconds

type HandOver = (socket: object) => void

/**
 * The way of each connection, before any listener sees it: sender, claim, ruling, remember, count; then it is handed over
 * to the listeners, or reset. What has to wait is held.
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
      if (this.#remembered.of(key) !== undefined) return true
      if (this.#held.has(key)) return false
      const fd = fdOf(socket)
      const isUnix = fd < 0 && pipeFdOf(socket) >= 0 && isUnixListener(server)
      return this.#receive(socket, fd, this.#owners.current.guard.readSender(fd), isUnix, handOver)
    } catch (error) {
      return this.#fail(socket, error)
    }
  }

  #receive (socket: object, fd: number, sender: Sender, isUnix: boolean, handOver: HandOver): boolean {
    const evidence = this.#owners.current.guard.examine(socket, fd, sender, isUnix)
    if (evidence === undefined) return this.#findSender(socket, fd, handOver)
    return this.#decide(socket, evidence)
  }

  #decide (socket: object, evidence: Evidence): boolean {
    this.#remembered.set(acceptedSocket(socket) as object, evidence)
    const { judge, tally, suspicions } = this.#owners.current
    if (!isChecked(evidence)) {
      const { course } = evidence
      if (course === undefined) tally.count(evidence.realAddress.source, 'unchecked', evidence.realAddress.reason, false)
      else tally.count(course.source ?? 'none', 'unchecked', undefined, false)
      tally.publish(socket, () => evidence.realAddress)
      return true
    }
    const isAllowed = judge.decide(evidence) !== undefined
    const ruling = judge.rule(evidence)
    const reason = reasonOf(evidence, ruling)
    if (!isAllowed) reset(socket)
    tally.count(sourceOf(evidence, ruling), ruling.trust, reason, !isAllowed)
    suspicions.ruled(evidence, ruling.trust, reason)
    tally.publish(socket, () => judge.answer(evidence))
    return isAllowed
  }

  /** Holds the connection where the search does not end at once. */
  #findSender (socket: object, fd: number, handOver: HandOver): boolean {
    const { senders } = this.#owners
    let sender: Sender
    let held: Held | undefined
    const goOn = (): void => { this.#resume(socket, sender ?? null, handOver) }
    senders?.search.ask(fd, (peer) => {
      sender = peer === undefined ? null : keepEndpoint(peer)
      held?.release(goOn)
    })
    if (sender !== undefined || senders === undefined) return this.#receive(socket, fd, sender ?? null, false, handOver)
    stopReading(socket)
    this.#held.add(acceptedSocket(socket) as object)
    held = this.#hold.take(socket, SENDER_TIMEOUT, goOn)
    return false
  }

  /** Goes on with a connection that was held. */
  #resume (socket: object, sender: Sender, handOver: HandOver): void {
    try {
      this.#held.delete(acceptedSocket(socket) as object)
      const fd = fdOf(socket)
      const isGone = this.#isGone(fd)
      if (isGone) reset(socket)
      if (!this.#receive(socket, isGone ? -1 : fd, sender, false, handOver) || isGone) return
      startReading(socket)
    } catch (error) {
      this.#fail(socket, error)
      return
    }
    handOver(socket)
  }

  /** Whether the client has ended the connection, or reset it, without a word. */
  #isGone (fd: number): boolean {
    const libc = this.#owners.senders?.libc
    if (fd < 0 || libc === undefined) return true
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
