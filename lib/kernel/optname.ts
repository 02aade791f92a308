import { IPPROTO_IP } from './constants'
import { errnoName } from './errno'
import type { Libc } from './libc'

// Minimum time between probes of an unknown optname, in milliseconds: a failing call costs as much as a successful
// one.
const PROBE_INTERVAL = 1000

/** Calls back once after the given time. */
export type Later = (callback: () => void, milliseconds: number) => void

// A flag cleared by a timer: 1 to 5 ns per connection, where reading the clock takes 54 ns.
const soon: Later = (callback, milliseconds) => { setTimeout(callback, milliseconds).unref() }

/** An optname of getsockopt(2) at IPPROTO_IP that a kernel module or an eBPF program may answer. */
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
   * Asks about a connection. Returns `undefined` if the call succeeded, else the name of the errno. After ENOPROTOOPT
   * the kernel is asked at most once a second, so that a module loaded later is found.
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
