import { IPPROTO_IP } from './constants'
import { errnoName } from './errno'
import type { Libc } from './libc'

// ENOPROTOOPT is the kernel's word that no module answers; asking costs as much as an answer would.
const PROBE_INTERVAL = 1000

/** Calls back once, after so many milliseconds. */
export type Later = (callback: () => void, milliseconds: number) => void

// A flag that a timer clears costs a connection less than a look at the clock, and a server at rest nothing.
const soon: Later = (callback, milliseconds) => { setTimeout(callback, milliseconds).unref() }

/** An optname of getsockopt(2) at IPPROTO_IP that a kernel module answers, if there is one. */
export class Optname {
  #absent = false
  readonly #libc: Libc
  readonly #optname: number
  readonly #later: Later

  constructor (libc: Libc, optname: number, later: Later = soon) {
    this.#libc = libc
    this.#optname = optname
    this.#later = later
  }

  /**
   * Asks about a connection: undefined where there is an answer, else the errno's name. While the kernel says that it
   * does not know the optname it is asked at most once in a second, so that a module started later is found.
   */
  ask (fd: number): string | undefined {
    if (this.#absent) return 'ENOPROTOOPT'
    const reason = this.#ask(fd)
    if (reason === 'ENOPROTOOPT') {
      this.#absent = true
      this.#later(() => { this.#absent = false }, PROBE_INTERVAL)
    }
    return reason
  }

  /** Whether the kernel knows the optname now. */
  isKnown (): boolean {
    let reason: string | undefined
    this.#libc.withSocket((fd) => { reason = this.#ask(fd) })
    return reason !== 'ENOPROTOOPT'
  }

  #ask (fd: number): string | undefined {
    const errno = this.#libc.getsockopt(fd, IPPROTO_IP, this.#optname)
    return errno === 0 ? undefined : errnoName(errno)
  }
}
