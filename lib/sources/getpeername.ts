import { errnoName, type Libc } from '../libc'
import { decodeSockaddr } from '../sockaddr'
import type { Source } from './source'

/** getpeername(2): the transport peer, or what a TOA module has put in its place. */
export function createGetpeername (libc: Libc): Source {
  return {
    name: 'getpeername',
    read (fd, into) {
      const errno = libc.getpeername(fd)
      if (errno !== 0) return errnoName(errno)
      return decodeSockaddr(libc.answer, libc.family(), into) ? undefined : 'bad-family'
    },
    missing: () => undefined
  }
}
