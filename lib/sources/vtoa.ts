import { errnoName, type Libc } from '../libc'
import { decodeSockaddr } from '../sockaddr'
import type { Source } from './source'

// <linux/in.h>
const IPPROTO_IP = 0
// The vtoa document gives the number alone; the name is ours.
const TOA_GET_CLIENT = 1348

// ENOPROTOOPT is the kernel's word that no module answers; asking costs as much as an answer would.
const PROBE_INTERVAL = 1000

/**
 * `getsockopt(fd, IPPROTO_IP, 1348)`, answered by the vtoa kernel module. While the kernel says that there is no such
 * option it is asked at most once in `PROBE_INTERVAL` milliseconds, so that a module started later is found.
 */
export function createVtoa (libc: Libc, now: () => number = () => performance.now()): Source {
  let absentUntil = 0

  function ask (fd: number): string | undefined {
    const errno = libc.getsockopt(fd, IPPROTO_IP, TOA_GET_CLIENT)
    return errno === 0 ? undefined : errnoName(errno)
  }

  return {
    name: 'vtoa',
    read (fd, into) {
      if (absentUntil !== 0 && now() < absentUntil) return 'ENOPROTOOPT'
      const reason = ask(fd)
      absentUntil = reason === 'ENOPROTOOPT' ? now() + PROBE_INTERVAL : 0
      if (reason !== undefined) return reason
      return decodeSockaddr(libc.answer, libc.family(), into) ? undefined : 'bad-family'
    },
    missing () {
      let reason: string | undefined
      libc.withSocket((fd) => { reason = ask(fd) })
      return reason === 'ENOPROTOOPT' ? 'the vtoa module is not loaded (getsockopt 1348 answers ENOPROTOOPT)' : undefined
    }
  }
}
