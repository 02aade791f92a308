import type { Socket } from 'node:net'
import { formatAddress } from '../../lib/address/address'
import { errnoName } from '../../lib/kernel/errno'
import { type Libc, loadLibc } from '../../lib/kernel/libc'
import { createEndpoint, decodeSockaddr } from '../../lib/kernel/sockaddr'
import { fdOf } from '../../lib/node/sockets'

/** What 1348 says of a socket: an address with its port, or the name of an errno. */
export function ask1348 (socket: Socket | number): string {
  const libc = loadLibc() as Libc
  const errno = libc.getsockopt(typeof socket === 'number' ? socket : fdOf(socket), 0, 1348)
  if (errno !== 0) return errnoName(errno)
  const endpoint = createEndpoint()
  if (!decodeSockaddr(libc.sockaddr, libc.family(), endpoint)) return `family ${libc.family()}`
  return `${formatAddress(endpoint)} ${endpoint.port}`
}
