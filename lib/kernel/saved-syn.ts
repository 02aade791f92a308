import type { Endpoint } from './sockaddr'
import { IPPROTO_TCP, TCP_FASTOPEN, TCP_SAVE_SYN } from './constants'
import { errnoName } from './errno'
import type { Libc } from './libc'
import { decodeSender, tcpHeaderAt } from './tcp-header'

/** The SYN of the connection at hand. */
export interface Syn {
  readonly bytes: Uint8Array
  /** 0: there is none. */
  readonly length: number
  /** Where its TCP header is; -1 where there is none. */
  readonly tcp: number
}

/**
 * Makes a listening socket keep the SYN of each connection, tcp(7) TCP_SAVE_SYN, Linux 4.3, after it has turned TCP Fast
 * Open off, which can accept a spoofed source address. The name of the errno where it cannot.
 */
export function armListener (libc: Libc, fd: number): string | undefined {
  // First, so that no SYN is saved of a connection that Fast Open made. A kernel without Fast Open refuses.
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
   * Reads the SYN of a connection, which frees it, and who sent it into `sender`. False where there is none: SYN cookies,
   * or a connection older than armListener().
   */
  read (fd: number, sender: Endpoint): boolean {
    this.length = this.#libc.readSavedSyn(fd)
    this.tcp = tcpHeaderAt(this.bytes, this.length)
    if (this.tcp < 0) return false
    decodeSender(this.bytes, this.tcp, sender)
    return true
  }

  /** The connection at hand is another one, whose SYN is not known. */
  forget (): void {
    this.length = 0
    this.tcp = -1
  }
}
