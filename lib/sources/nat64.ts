import type { Libc } from '../kernel/libc'
import { decodeAddress, type Endpoint, uint16 } from '../kernel/sockaddr'
import { type Later, Optname } from '../kernel/optname'
import type { Source } from './source'

// TOA_SO_GET_LOOKUP of DPVS's toa module. The result is not a sockaddr: struct in6_addr, the port in network byte
// order, and two bytes of padding that the module does not write.
const TOA_SO_GET_LOOKUP = 4096

/**
 * `getsockopt(fd, IPPROTO_IP, 4096)`, answered by DPVS's toa module for IPv6 clients of an IPv4 server. `EINVAL`: no
 * TOA on this connection; `EFAULT`: TOA, but not of NAT64 (getpeername has it); `ENOPROTOOPT`: no such module.
 */
export class Nat64 implements Source {
  readonly name = 'nat64'
  readonly #libc: Libc
  readonly #optname: Optname

  constructor (libc: Libc, later?: Later) {
    this.#libc = libc
    this.#optname = new Optname(libc, TOA_SO_GET_LOOKUP, later)
  }

  read (fd: number, into: Endpoint): string | undefined {
    const reason = this.#optname.ask(fd)
    if (reason !== undefined) return reason
    const { bytes } = this.#libc
    decodeAddress(bytes, 0, true, into)
    into.port = uint16(bytes, 16)
    return undefined
  }

  missing (): string | undefined {
    if (this.#optname.isKnown()) return undefined
    return 'no module answers 4096: the toa module of DPVS is not loaded, or too old'
  }
}
