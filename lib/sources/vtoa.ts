import type { Libc } from '../libc'
import { decodeSockaddr } from '../sockaddr'
import { createOptname, type Later } from './optname'
import type { Source } from './source'

// The vtoa document gives the number alone; the name is ours.
const TOA_GET_CLIENT = 1348

/** `getsockopt(fd, IPPROTO_IP, 1348)`, answered by the vtoa kernel module. */
export function createVtoa (libc: Libc, later?: Later): Source {
  const optname = createOptname(libc, TOA_GET_CLIENT, later)
  return {
    name: 'vtoa',
    read: (fd, into) =>
      optname.ask(fd) ?? (decodeSockaddr(libc.answer, libc.family(), into) ? undefined : 'bad-family'),
    missing: () => optname.isKnown() ? undefined : 'the vtoa module is not loaded (getsockopt 1348 answers ENOPROTOOPT)'
  }
}
