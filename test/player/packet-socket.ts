import { getSystemErrorName } from 'node:util'
import type * as Koffi from 'koffi' with { 'resolution-mode': 'import' }

// <linux/socket.h>, <linux/net.h>, <linux/if_ether.h>
const AF_PACKET = 17
const SOCK_RAW = 3
const SOCK_NONBLOCK = 0o4000
const SOCK_CLOEXEC = 0o2000000
const ETH_P_ALL = 3
const SOL_SOCKET = 1
const SO_RCVBUF = 8
const EAGAIN = 11

const SIZEOF_SOCKADDR_LL = 20
// More than any frame: a veth pair carries segments that no network card has split.
const FRAME_MAX = 1 << 17
const RECEIVE_BUFFER = 1 << 22
const FRAMES_PER_TURN = 256

/** A packet(7) socket on one interface. It keeps the process alive until it is closed. */
export interface PacketSocket {
  send (frame: Uint8Array): void
  close (): void
}

/** `onFrame` gets every frame that comes in; its bytes are good until it returns. */
export function openPacketSocket (interfaceName: string, onFrame: (frame: Buffer) => void): PacketSocket {
  const koffi = require('koffi') as typeof Koffi
  const libc = koffi.load(null)
  const socket = libc.func('int socket(int, int, int)')
  const bind = libc.func('int bind(int, _In_ uint8_t *, uint32_t)')
  const setsockopt = libc.func('int setsockopt(int, int, int, _In_ int *, uint32_t)')
  const recv = libc.func('intptr_t recv(int, _Out_ uint8_t *, size_t, int)')
  const send = libc.func('intptr_t send(int, _In_ uint8_t *, size_t, int)')
  const close = libc.func('int close(int)')
  const interfaceIndex: number = libc.func('uint32_t if_nametoindex(const char *)')(interfaceName)
  if (interfaceIndex === 0) throw new Error(`there is no network interface ${interfaceName}`)

  const failed = (call: string) => new Error(`${call}: ${getSystemErrorName(-koffi.errno())}`)

  const fd: number = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
  if (fd < 0) throw failed('socket')
  // As much as is allowed: a flood's answers must not crowd out those to a client.
  setsockopt(fd, SOL_SOCKET, SO_RCVBUF, [RECEIVE_BUFFER], 4)
  // struct sockaddr_ll: the protocol in network byte order, all else in the machine's.
  const name = new ArrayBuffer(SIZEOF_SOCKADDR_LL)
  new Uint16Array(name, 0, 1).set([AF_PACKET])
  new Uint8Array(name, 2, 2).set([0, ETH_P_ALL])
  new Int32Array(name, 4, 1).set([interfaceIndex])
  if (bind(fd, new Uint8Array(name), SIZEOF_SOCKADDR_LL) < 0) {
    const error = failed('bind')
    close(fd)
    throw error
  }

  const buffer = Buffer.alloc(FRAME_MAX)
  let open = true

  function receive (): void {
    for (let frames = 0; open && frames < FRAMES_PER_TURN; frames++) {
      const length: number = recv(fd, buffer, FRAME_MAX, 0)
      if (length >= 0) onFrame(buffer.subarray(0, length))
      else if (koffi.errno() === EAGAIN) return
      else throw failed('recv')
    }
  }

  let turn: NodeJS.Immediate | undefined
  // koffi's callback is no turn of the event loop's own: promises do not settle after it, and a throw is lost.
  const poll = koffi.node.poll(fd, () => {
    turn ??= setImmediate(() => {
      turn = undefined
      receive()
    })
  })

  return {
    send (frame) {
      if (!open) throw new Error('the packet socket is closed')
      if (send(fd, frame, frame.length, 0) < 0) throw failed('send')
    },
    close () {
      if (!open) return
      open = false
      clearImmediate(turn)
      poll.close()
      close(fd)
    }
  }
}
