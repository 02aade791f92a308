import type { Libc } from '../libc'
import { decodeIPv6, unmap } from '../sockaddr'
import { createOptname, type Later } from './optname'
import type { Source } from './source'

// DPVS's toa module: TOA_SO_GET_LOOKUP. Its answer is no sockaddr: struct in6_addr, then the port in network order, then
// two bytes of padding that it leaves as they were.
const TOA_SO_GET_LOOKUP = 4096

/**
 * `getsockopt(fd, IPPROTO_IP, 4096)`, answered by DPVS's toa module for IPv6 clients of an IPv4 server. `EINVAL`: no
 * TOA on this connection; `EFAULT`: TOA, but not of NAT64, so that getpeername has it; `ENOPROTOOPT`: no such module.
 */
export function createNat64 (libc: Libc, later?: Later): Source {
  const optname = createOptname(libc, TOA_SO_GET_LOOKUP, later)
  return {
    name: 'nat64',
    read (fd, into) {
      const reason = optname.ask(fd)
      if (reason !== undefined) return reason
      const { answer } = libc
      decodeIPv6(answer, 0, into)
      unmap(into)
      into.port = (answer[16] as number) << 8 | (answer[17] as number)
      return undefined
    },
    missing: () => optname.isKnown() ? undefined : 'the toa module of DPVS is not loaded (getsockopt 4096 answers ENOPROTOOPT)'
  }
}
