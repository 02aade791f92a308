// A server in a process of its own, which a fault can be done to. Tells its parent the port, and ends with it.
import { closeSync } from 'node:fs'
import type * as Koffi from 'koffi' with { 'resolution-mode': 'import' }
import Fastify from 'fastify'
import pino from 'pino'
import realIp, { withRealIp, type FastifyRealIpOptions } from 'fastify-real-ip'

export interface Order {
  readonly plugin?: FastifyRealIpOptions
  /** Every socket(AF_NETLINK) fails with EPERM. */
  readonly refuseNetlink?: boolean
  readonly host?: string
  /** Descriptor 0 is free for a connection. */
  readonly closeStdin?: boolean
  /** The file to log to. */
  readonly log?: string
}

// <linux/prctl.h>, <linux/seccomp.h>, <linux/bpf_common.h>
const PR_SET_SECCOMP = 22
const PR_SET_NO_NEW_PRIVS = 38
const SECCOMP_MODE_FILTER = 2
const SECCOMP_RET_ERRNO = 0x00050000
const SECCOMP_RET_ALLOW = 0x7fff0000
const LOAD = 0x20
const JUMP_IF_EQUAL = 0x15
const RETURN = 0x06
const AF_NETLINK = 16
const EPERM = 1
const SYS_SOCKET: Record<string, number> = { x64: 41, arm64: 198 }

/** seccomp(2), as container runtimes use it. For this thread, to the end of the process. */
function refuseNetlink (): void {
  const koffi = require('koffi') as typeof Koffi
  const prctl = koffi.load(null).func('int prctl(int, uintptr_t, uintptr_t, uintptr_t, uintptr_t)')
  const instructions: Array<[code: number, ifTrue: number, ifFalse: number, k: number]> = [
    [LOAD, 0, 0, 0], // the system call's number
    [JUMP_IF_EQUAL, 0, 3, SYS_SOCKET[process.arch] as number],
    [LOAD, 0, 0, 16], // its first argument
    [JUMP_IF_EQUAL, 0, 1, AF_NETLINK],
    [RETURN, 0, 0, SECCOMP_RET_ERRNO | EPERM],
    [RETURN, 0, 0, SECCOMP_RET_ALLOW]
  ]
  const filter = koffi.alloc('uint8_t', instructions.length * 8)
  const bytes = new DataView(koffi.view(filter, instructions.length * 8))
  instructions.forEach(([code, ifTrue, ifFalse, k], i) => {
    bytes.setUint16(i * 8, code, true)
    bytes.setUint8(i * 8 + 2, ifTrue)
    bytes.setUint8(i * 8 + 3, ifFalse)
    bytes.setUint32(i * 8 + 4, k, true)
  })
  const program = koffi.alloc('uint8_t', 16)
  const fields = new DataView(koffi.view(program, 16))
  fields.setUint16(0, instructions.length, true)
  fields.setBigUint64(8, BigInt(koffi.address(filter)), true)
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) !== 0 ||
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, Number(koffi.address(program)), 0, 0) !== 0) throw new Error('no seccomp here')
}

async function serve (order: Order): Promise<void> {
  if (order.refuseNetlink) refuseNetlink()
  const failures = new Set<unknown>()
  const stream = order.log === undefined ? undefined : pino.destination({ dest: order.log, sync: false })
  stream?.on('error', ({ code }: NodeJS.ErrnoException) => { failures.add(code) })
  const app = Fastify({
    forceCloseConnections: true,
    ...(stream && { logger: { stream, serializers: { req: withRealIp() } } })
  })
  await app.register(realIp, { ...order.plugin, ...(stream && { bindLogger: true }) })
  app.get('/', (request) => request.realAddress)
  app.get('/failures', () => [...failures])
  await app.listen({ port: 0, host: order.host ?? '127.0.0.1' })
  if (order.closeStdin) closeSync(0)
  process.once('disconnect', () => { void app.close() })
  process.send?.((app.server.address() as { port: number }).port)
}

void serve(JSON.parse(process.env.FASTIFY_REAL_IP_ORDER as string))
