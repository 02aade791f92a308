import { isMainThread } from 'node:worker_threads'
import { AF_INET, IPPROTO_TCP, SO_COOKIE, SOL_SOCKET, TCP_INFO, TCP_SYN_RECV, TCPI_OPT_SYN_DATA } from './constants'
import type { Diag, Libc } from './libc'
import { decodeReplies, encodeDump, encodeExact, REQUEST, type Rest } from './sock-diag'
import {
  createEndpoint, decodeSockaddr, type Endpoint, keepEndpoint, sameEndpoint, SOCKADDR_IN6, uint16
} from './sockaddr'

// Dumps of all sockets may take at most this share of the time, unless a connection would wait longer than
// DUMP_PAUSE_MAX: attackers can force the SYN cookies that make dumps necessary.
const DUMP_SHARE = 0.05
const DUMP_PAUSE_MAX = 200 // milliseconds

// struct tcp_info, <linux/tcp.h>
const TCPI_STATE = 0
const TCPI_OPTIONS = 5

/**
 * Called once with the transport peer, or `undefined` if it cannot be known. Copy the endpoint at once. Must not throw.
 */
export type Found = (peer: Endpoint | undefined) => void

interface Waiting {
  readonly family: number
  readonly localPort: number
  readonly found: Found
}

/**
 * Finds the transport peer of connections without a saved SYN through sock_diag(7), even if getpeername(2) is
 * rewritten.
 */
export class PeerSearch {
  readonly #libc: Libc
  readonly #now: () => number
  readonly #onError: (error: unknown) => void
  readonly #endpoint = createEndpoint()
  readonly #local = new Uint8Array(SOCKADDR_IN6)
  readonly #peer = new Uint8Array(SOCKADDR_IN6)
  readonly #cookie = new Uint8Array(8)
  readonly #waiting = new Map<bigint, Waiting>()
  #family = 0
  #peerFamily = 0
  #diag: Diag | undefined
  #nextDump = 0
  #timer: NodeJS.Timeout | undefined

  /** `onError` receives what a callback throws. */
  constructor (libc: Libc, onError: (error: unknown) => void, now = () => performance.now()) {
    this.#libc = libc
    this.#onError = onError
    this.#now = now
  }

  /** Whether sock_diag can be used now. */
  isUsable (): boolean {
    const diag = this.#open()
    if (diag === undefined) return false
    const nobody = new Uint8Array(SOCKADDR_IN6)
    encodeExact(diag.buffer, AF_INET, nobody, nobody, nobody)
    // No connection has this tuple, so that the callback has nothing to do.
    return this.#exchange(diag, Boolean)
  }

  /**
   * Looks up the tuple that getsockname(2) and getpeername(2) give; a match proves that getpeername is not rewritten.
   * Else dumps all connections, once for all that wait. Calls `found` synchronously if possible.
   *
   * The handshake must be complete: before (TCP Fast Open), the source address may be spoofed.
   */
  ask (fd: number, found: Found): void {
    const diag = this.#open()
    if (diag === undefined || !this.#identify(fd) || !this.#isHandshakeFinished(fd)) return found(undefined)
    const cookie = this.#readCookie()
    if (this.#provePeer(diag, cookie)) return found(this.#endpoint)

    const localPort = uint16(this.#local, 2)
    this.#waiting.set(cookie, { family: this.#family, localPort, found })
    const pause = this.#nextDump - this.#now()
    if (pause <= 0) this.#dump()
    else this.#timer ??= setTimeout(() => { this.#dump() }, Math.min(pause, DUMP_PAUSE_MAX)).unref()
  }

  /** Whether getpeername(2) gives an address that is neither the claim nor the transport peer. */
  disagrees (fd: number, claim: Endpoint): boolean {
    const diag = this.#open()
    if (diag === undefined || !this.#identify(fd)) return false
    decodeSockaddr(new DataView(this.#peer.buffer), this.#peerFamily, this.#endpoint)
    if (sameEndpoint(this.#endpoint, claim)) return false
    return !this.#provePeer(diag, this.#readCookie())
  }

  #readCookie (): bigint {
    return new BigUint64Array(this.#cookie.buffer)[0] as bigint
  }

  /** Copies both names and the cookie of a connection; false if it is no longer connected. */
  #identify (fd: number): boolean {
    const libc = this.#libc
    if (libc.getpeername(fd) !== 0) return false
    this.#peer.set(libc.bytes.subarray(0, SOCKADDR_IN6))
    this.#peerFamily = libc.family()
    if (libc.getsockname(fd) !== 0) return false
    this.#local.set(libc.bytes.subarray(0, SOCKADDR_IN6))
    this.#family = libc.family()
    if (libc.getsockopt(fd, SOL_SOCKET, SO_COOKIE) !== 0) return false
    this.#cookie.set(libc.bytes.subarray(0, 8))
    return true
  }

  #isHandshakeFinished (fd: number): boolean {
    const { bytes } = this.#libc
    return this.#libc.getsockopt(fd, IPPROTO_TCP, TCP_INFO) === 0 && bytes[TCPI_STATE] !== TCP_SYN_RECV &&
      ((bytes[TCPI_OPTIONS] as number) & TCPI_OPT_SYN_DATA) === 0
  }

  /** Whether getpeername(2) gives the transport peer, which is then in #endpoint. */
  #provePeer (diag: Diag, cookie: bigint): boolean {
    // An address of another family than the socket's is a rewritten one.
    if (this.#peerFamily !== this.#family) return false
    encodeExact(diag.buffer, this.#family, this.#local, this.#peer, this.#cookie)
    let proven = false
    this.#exchange(diag, (found) => { proven = found === cookie })
    return proven
  }

  #open (): Diag | undefined {
    if (this.#diag === undefined) {
      const diag = this.#libc.openDiag()
      if (typeof diag !== 'number') this.#diag = diag
    }
    return this.#diag
  }

  /**
   * Sends the request in the buffer and calls `found` for each connection, with its endpoint in #endpoint. The kernel
   * completes its reply before send(2) returns, a dump in parts. Returns false if there was no reply, or an incomplete
   * one.
   */
  #exchange (diag: Diag, found: (cookie: bigint) => void): boolean {
    let rest: Rest = diag.send(REQUEST) === 0 ? 'more' : 'broken'
    while (rest === 'more') {
      const length = diag.receive()
      rest = length > 0 ? decodeReplies(diag.buffer, length, this.#endpoint, found) : 'broken'
    }
    // Close the socket, so that the rest of this reply is not taken for the next one. Do not cache one in a worker
    // thread, which may be terminated at any time and would leak the descriptor.
    if (rest === 'broken' || !isMainThread) this.#closeDiag()
    return rest === 'done'
  }

  #dump (): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const start = this.#now()
    const calls: Array<() => void> = []
    while (this.#waiting.size > 0) {
      const [first] = this.#waiting.values()
      const { family, localPort } = first as Waiting
      const diag = this.#open()
      if (diag !== undefined) {
        encodeDump(diag.buffer, family, localPort)
        this.#exchange(diag, (cookie) => {
          const waiting = this.#waiting.get(cookie)
          if (waiting === undefined) return
          this.#waiting.delete(cookie)
          const peer = keepEndpoint(this.#endpoint)
          calls.push(() => { waiting.found(peer) })
        })
      }
      // A connection that was missing from this dump is no longer connected.
      for (const [cookie, waiting] of this.#waiting) {
        if (waiting.family !== family || waiting.localPort !== localPort) continue
        this.#waiting.delete(cookie)
        calls.push(() => { waiting.found(undefined) })
      }
    }
    const end = this.#now()
    this.#nextDump = end + Math.min((end - start) * (1 / DUMP_SHARE - 1), DUMP_PAUSE_MAX)
    this.#callEach(calls)
  }

  /** A callback that throws must not affect the others. */
  #callEach (calls: ReadonlyArray<() => void>): void {
    for (const call of calls) {
      try {
        call()
      } catch (error) {
        this.#onError(error)
      }
    }
  }

  #closeDiag (): void {
    this.#diag?.close()
    this.#diag = undefined
  }

  /** Reports `undefined` to all waiting connections, and closes the netlink socket. */
  close (): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const waiting = [...this.#waiting.values()]
    this.#waiting.clear()
    this.#callEach(waiting.map(({ found }) => () => { found(undefined) }))
    this.#closeDiag()
  }
}
