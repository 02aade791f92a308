import type { Libc } from '../kernel/libc'
import { decodeSockaddr, type Endpoint } from '../kernel/sockaddr'
import { type Later, Optname } from '../kernel/optname'
import type { Source } from './source'

// The vtoa document gives only the number, no name.
const TOA_GET_CLIENT = 1348

const MISSING = 'no module answers 1348: vtoa is not loaded, or too old, and fastify-real-ip attach was not run for ' +
  'this cgroup'

/** `getsockopt(fd, IPPROTO_IP, 1348)`, answered by the vtoa kernel module or by `fastify-real-ip attach`. */
export class Vtoa implements Source {
  readonly name = 'vtoa'
  readonly #libc: Libc
  readonly #optname: Optname

  constructor (libc: Libc, later?: Later) {
    this.#libc = libc
    this.#optname = new Optname(libc, TOA_GET_CLIENT, later)
  }

  read (fd: number, into: Endpoint): string | undefined {
    const reason = this.#optname.ask(fd)
    if (reason !== undefined) return reason
    const libc = this.#libc
    return decodeSockaddr(libc.sockaddr, libc.family(), into) ? undefined : 'bad-family'
  }

  missing (): string | undefined {
    return this.#optname.isKnown() ? undefined : MISSING
  }
}
