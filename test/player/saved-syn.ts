import type { Server, Socket } from 'node:net'
import { getSystemErrorName } from 'node:util'
import type * as Koffi from 'koffi' with { 'resolution-mode': 'import' }

// <netinet/in.h>, <linux/tcp.h>
const IPPROTO_TCP = 6
const TCP_SAVE_SYN = 27
const TCP_SAVED_SYN = 28
// As much as a SYN's headers can be long: as one packet.
const HEADERS_MAX = 1500

/** Has the kernel keep the SYN of every connection that the server accepts from now on. */
export function saveSyn (server: Server): void {
  const koffi = require('koffi') as typeof Koffi
  const setsockopt = koffi.load(null).func('int setsockopt(int, int, int, _In_ int *, uint32_t)')
  if (setsockopt(fdOf(server), IPPROTO_TCP, TCP_SAVE_SYN, [1], 4) !== 0) {
    throw new Error(`TCP_SAVE_SYN: ${getSystemErrorName(-koffi.errno())}`)
  }
}

/** The IP and TCP headers of the SYN that began the connection; undefined where none is kept, or not any more. */
export function savedSyn (socket: Socket): Buffer | undefined {
  const koffi = require('koffi') as typeof Koffi
  const getsockopt = koffi.load(null).func('int getsockopt(int, int, int, _Out_ uint8_t *, _Inout_ uint32_t *)')
  const answer = Buffer.alloc(HEADERS_MAX)
  const length = [HEADERS_MAX]
  if (getsockopt(fdOf(socket), IPPROTO_TCP, TCP_SAVED_SYN, answer, length) !== 0) {
    throw new Error(`TCP_SAVED_SYN: ${getSystemErrorName(-koffi.errno())}`)
  }
  return length[0] === 0 ? undefined : answer.subarray(0, length[0])
}

function fdOf (socket: object): number {
  return (socket as { _handle: { fd: number } })._handle.fd
}
