import { errnoName } from '../kernel/errno'
import type { Libc } from '../kernel/libc'
import { decodeSockaddr, type Endpoint } from '../kernel/sockaddr'
import type { Source } from './source'

/** getpeername(2): the transport peer, or the client that a TOA module reports in its place. */
export class Getpeername implements Source {
  readonly name = 'getpeername'
  readonly #libc: Libc

  constructor (libc: Libc) {
    this.#libc = libc
  }

  read (fd: number, into: Endpoint): string | undefined {
    const libc = this.#libc
    const errno = libc.getpeername(fd)
    if (errno !== 0) return errnoName(errno)
    return decodeSockaddr(libc.sockaddr, libc.family(), into) ? undefined : 'bad-family'
  }

  missing (): undefined {
    return undefined
  }
}
