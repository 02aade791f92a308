import type { Endpoint } from './sockaddr'
import { IPPROTO_TCP, TCP_FASTOPEN, TCP_SAVE_SYN } from './constants'
import { errnoName } from './errno'
import type { Libc } from './libc'
import { decodeSender, tcpHeaderAt } from './tcp-header'

/** The SYN of the current connection. */
export interface Syn {
  readonly bytes: Uint8Array
  /** 0: there is none. */
  readonly length: number
  /** The offset of its TCP header; -1 if there is none. */
  readonly tcp: number
}

/**
 * Disables TCP Fast Open, which can accept a spoofed source address, and enables tcp(7) TCP_SAVE_SYN (Linux 4.3) on a
 * listening socket. Returns the name of the errno on failure.
 */
export function armListener (libc: Libc, fd: number): string | undefined {
  // First, so that no SYN of a Fast Open connection is saved. Kernels without Fast Open refuse.
  libc.setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN, 0)
  const errno = libc.setsockopt(fd, IPPROTO_TCP, TCP_SAVE_SYN, 1)
  return errno === 0 ? undefined : errnoName(errno)
}

/** Reads saved SYNs, tcp(7) TCP_SAVED_SYN. */
export class SynReader implements Syn {
  readonly bytes: Uint8Array
  length = 0
  tcp = -1
  readonly #libc: Libc

  constructor (libc: Libc) {
    this.#libc = libc
    this.bytes = libc.savedSyn
  }

  /**
   * Reads the SYN of a connection, which frees it, and decodes its source into `sender`. Returns false if no SYN was
   * kept: SYN cookies, or a connection older than armListener().
   */
  read (fd: number, sender: Endpoint): boolean {
    this.length = this.#libc.readSavedSyn(fd)
    this.tcp = tcpHeaderAt(this.bytes, this.length)
    if (this.tcp < 0) return false
    decodeSender(this.bytes, this.tcp, sender)
    return true
  }

  /** Forgets the last SYN: the current connection is another one. */
  forget (): void {
    this.length = 0
    this.tcp = -1
  }
}
