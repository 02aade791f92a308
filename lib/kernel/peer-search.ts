import { isMainThread } from 'node:worker_threads'
import { type Address, formatAddress, sameAddress } from '../address/address'
import { type Diag, errnoName, type Libc } from './libc'
import { decodeSender, tcpHeaderAt } from './tcp-header'
import { decodeAnswers, encodeDump, encodeExact, REQUEST, type Rest } from './sock-diag'
import type { Rulings } from '../trust/table'
import { createEndpoint, decodeSockaddr, type Endpoint, sameEndpoint } from './sockaddr'

// <linux/socket.h>, <linux/tcp.h>, <asm-generic/socket.h>
const IPPROTO_TCP = 6
const SOL_SOCKET = 1
const SO_COOKIE = 57
const TCP_FASTOPEN = 23
const TCP_SAVE_SYN = 27

// A dump of all sockets may take at most this share of the time, for SYN cookies, which call for dumps, are the
// attacker's to force.
const DUMP_SHARE = 0.05
// A power of 2.
const KNOWN_PEERS = 1024

/** An address that packets came from. Connections share one each: balancers are few. */
export class PeerAddress implements Address {
  readonly family: 'IPv4' | 'IPv6'
  readonly w0: number
  readonly w1: number
  readonly w2: number
  readonly w3: number
  readonly text: string
  /** What the policy that judged it last made of it: a list is searched once for each peer. */
  judgedBy: object | undefined = undefined
  rulings: Rulings | undefined = undefined

  constructor (address: Address, text: string) {
    this.family = address.family
    this.w0 = address.w0
    this.w1 = address.w1
    this.w2 = address.w2
    this.w3 = address.w3
    this.text = text
  }
}

const knownPeers = new Array<PeerAddress | undefined>(KNOWN_PEERS).fill(undefined)

export function peerAddress (address: Address): PeerAddress {
  // Those that share a slot take each other's place, and no more than that.
  const hash = address.w0 ^ address.w1 ^ address.w2 ^ address.w3
  const slot = (hash ^ hash >>> 11 ^ hash >>> 22) & (KNOWN_PEERS - 1)
  const known = knownPeers[slot]
  if (known !== undefined && sameAddress(known, address)) return known
  return knownPeers[slot] = new PeerAddress(address, formatAddress(address))
}

/** What came of a search for a connection's transport peer; undefined where it cannot be known. */
export type Settle = (peer: PeerAddress | undefined, port: number) => void

interface Waiting {
  readonly family: number
  readonly localPort: number
  readonly settle: Settle
}

/** Finds out who really sent the packets of a connection, whatever getpeername(2) says. */
export class TransportPeers {
  /** The SYN that was read last; its length is 0 where there was none. */
  readonly syn: { readonly bytes: Uint8Array, length: number, tcp: number }
  /** Whether a listening socket keeps its SYNs. */
  armed = false
  readonly #libc: Libc
  readonly #now: () => number
  readonly #endpoint = createEndpoint()
  readonly #local = new Uint8Array(28)
  readonly #peer = new Uint8Array(28)
  readonly #cookie = new Uint8Array(8)
  readonly #waiting = new Map<bigint, Waiting>()
  #family = 0
  #diag: Diag | undefined
  #nextDump = 0
  #timer: NodeJS.Timeout | undefined

  constructor (libc: Libc, now: () => number = () => performance.now()) {
    this.#libc = libc
    this.#now = now
    this.syn = { bytes: libc.savedSyn, length: 0, tcp: -1 }
  }

  /**
   * Makes a listening socket keep the SYN of each connection, tcp(7) TCP_SAVE_SYN, Linux 4.3; and turns TCP Fast Open
   * off, which can accept a spoofed source. The name of the errno where it cannot.
   */
  arm (fd: number): string | undefined {
    const errno = this.#libc.setsockopt(fd, IPPROTO_TCP, TCP_SAVE_SYN, 1)
    if (errno !== 0) return errnoName(errno)
    this.armed = true
    // A kernel without Fast Open has none to turn off.
    this.#libc.setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN, 0)
    return undefined
  }

  /** Reads the saved SYN: one read frees it. False where there is none: SYN cookies, or a connection older than arm(). */
  readSavedSyn (fd: number, into: Endpoint): boolean {
    const { syn } = this
    syn.length = this.#libc.readSavedSyn(fd)
    syn.tcp = tcpHeaderAt(syn.bytes, syn.length)
    if (syn.tcp < 0) return false
    decodeSender(syn.bytes, syn.tcp, into)
    return true
  }

  /**
   * Asks sock_diag(7): first whether the connection is the one between the two addresses that getsockname(2) and
   * getpeername(2) give, which proves getpeername true; else for all connections, together with all others that wait.
   * Settles at once where it can.
   */
  ask (fd: number, settle: Settle): void {
    const diag = this.#open()
    if (diag === undefined || !this.#identify(fd)) return settle(undefined, 0)
    const cookie = this.#readCookie()
    if (this.#isTrue(diag, cookie)) return settle(peerAddress(this.#endpoint), this.#endpoint.port)

    const localPort = (this.#local[2] as number) << 8 | (this.#local[3] as number)
    this.#waiting.set(cookie, { family: this.#family, localPort, settle })
    const wait = this.#nextDump - this.#now()
    if (wait <= 0) this.#dump()
    else this.#timer ??= setTimeout(() => { this.#dump() }, wait).unref()
  }

  /** Whether getpeername(2) gives an address that is neither the claim nor the transport peer. */
  disagrees (fd: number, claim: Endpoint): boolean {
    const diag = this.#open()
    if (diag === undefined || !this.#identify(fd)) return false
    decodeSockaddr(new DataView(this.#peer.buffer), this.#family, this.#endpoint)
    if (sameEndpoint(this.#endpoint, claim)) return false
    return !this.#isTrue(diag, this.#readCookie())
  }

  #readCookie (): bigint {
    return new BigUint64Array(this.#cookie.buffer)[0] as bigint
  }

  /** Copies both names and the cookie of a connection; false where it is no longer one. */
  #identify (fd: number): boolean {
    const libc = this.#libc
    if (libc.getpeername(fd) !== 0) return false
    this.#peer.set(libc.answer.subarray(0, 28))
    if (libc.getsockname(fd) !== 0) return false
    this.#local.set(libc.answer.subarray(0, 28))
    this.#family = libc.family()
    if (libc.getsockopt(fd, SOL_SOCKET, SO_COOKIE) !== 0) return false
    this.#cookie.set(libc.answer.subarray(0, 8))
    return true
  }

  /** Whether getpeername(2) says the truth of this connection; then the truth is in #endpoint. */
  #isTrue (diag: Diag, cookie: bigint): boolean {
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
   * Sends the request in the buffer and gives each answer to `found`, with its endpoint in #endpoint. The kernel has
   * the whole answer ready when the request was sent, a dump's in parts.
   */
  #exchange (diag: Diag, found: (cookie: bigint) => void): void {
    let rest: Rest = diag.send(REQUEST) === 0 ? 'more' : 'broken'
    while (rest === 'more') {
      const length = diag.receive()
      rest = length > 0 ? decodeAnswers(diag.buffer, length, this.#endpoint, found) : 'broken'
    }
    // Nothing of this answer may be taken for the next one's. And a worker thread can be ended at any time, without a
    // word, and the descriptor would outlive it.
    if (rest === 'broken' || !isMainThread) this.#closeDiag()
  }

  #dump (): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const start = this.#now()
    const settled: Array<() => void> = []
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
          const address = peerAddress(this.#endpoint)
          const { port } = this.#endpoint
          settled.push(() => { waiting.settle(address, port) })
        })
      }
      // Whoever should have been in this dump and was not is no longer connected.
      for (const [cookie, waiting] of this.#waiting) {
        if (waiting.family !== family || waiting.localPort !== localPort) continue
        this.#waiting.delete(cookie)
        settled.push(() => { waiting.settle(undefined, 0) })
      }
    }
    const end = this.#now()
    this.#nextDump = end + (end - start) * (1 / DUMP_SHARE - 1)
    for (const settle of settled) settle()
  }

  #closeDiag (): void {
    this.#diag?.close()
    this.#diag = undefined
  }

  /** Settles all that wait, with nothing, and closes the netlink socket. */
  close (): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    const waiting = [...this.#waiting.values()]
    this.#waiting.clear()
    for (const { settle } of waiting) settle(undefined, 0)
    this.#closeDiag()
  }
}
