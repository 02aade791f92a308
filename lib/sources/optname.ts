import { errnoName, type Libc } from '../libc'

// <linux/in.h>
const IPPROTO_IP = 0
// ENOPROTOOPT is the kernel's word that no module answers; asking costs as much as an answer would.
const PROBE_INTERVAL = 1000

/** Calls back once, after so many milliseconds. */
export type Later = (callback: () => void, milliseconds: number) => void

// A flag that a timer clears costs a connection less than a look at the clock, and a server at rest nothing.
const soon: Later = (callback, milliseconds) => { setTimeout(callback, milliseconds).unref() }

/** An optname of getsockopt(2) at IPPROTO_IP that a kernel module answers, if there is one. */
export interface Optname {
  /**
   * Asks about a connection: undefined where there is an answer, else the errno's name. While the kernel says that it
   * does not know the optname it is asked at most once in a second, so that a module started later is found.
   */
  ask (fd: number): string | undefined
  /** Whether the kernel knows the optname now. */
  isKnown (): boolean
}

export function createOptname (libc: Libc, optname: number, later: Later = soon): Optname {
  let absent = false

  function ask (fd: number): string | undefined {
    const errno = libc.getsockopt(fd, IPPROTO_IP, optname)
    return errno === 0 ? undefined : errnoName(errno)
  }

  return {
    ask (fd) {
      if (absent) return 'ENOPROTOOPT'
      const reason = ask(fd)
      if (reason === 'ENOPROTOOPT') {
        absent = true
        later(() => { absent = false }, PROBE_INTERVAL)
      }
      return reason
    },
    isKnown () {
      let reason: string | undefined
      libc.withSocket((fd) => { reason = ask(fd) })
      return reason !== 'ENOPROTOOPT'
    }
  }
}
