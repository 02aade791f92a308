import type { Server } from 'node:net'
import { loadLibc } from '../../lib/kernel/libc'
import { IPPROTO_TCP } from '../../lib/kernel/constants'
import { isUnixListener, listeningFdOf } from '../../lib/node/sockets'

// <linux/tcp.h>
const TCP_DEFER_ACCEPT = 9

/** Whether connections are accepted only when their first bytes have come. Without effect where the kernel cannot do it. */
export function setDeferAccept (server: Server, isDeferred: boolean): void {
  const libc = loadLibc()
  const fd = listeningFdOf(server)
  if (typeof libc === 'string' || fd < 0 || isUnixListener(server)) return
  const errno = libc.setsockopt(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT, isDeferred ? 5 : 0)
  if (errno !== 0) throw new Error(`TCP_DEFER_ACCEPT: errno ${errno}`)
}
