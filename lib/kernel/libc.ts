import { endianness } from 'node:os'
import type * as Koffi from 'koffi' with { 'resolution-mode': 'import' }
import {
  AF_INET, AF_NETLINK, AF_PACKET, ETH_P_ALL, IPPROTO_TCP, MSG_DONTWAIT, MSG_PEEK, NETLINK_SOCK_DIAG, SO_ATTACH_FILTER,
  SOCK_CLOEXEC, SOCK_DGRAM, SOCK_RAW, SOCK_STREAM, SOL_SOCKET, TCP_SAVED_SYN
} from './constants'
import { type Bpf, type Capture, type Libc, PEEK_MAX, type Pointer } from './calls'
import { SOCKADDR_STORAGE } from './sockaddr'

export type { Bpf, Capture, Diag, Libc, Pointer } from './calls'

// The longest headers of a SYN: IPv6 extension headers can fill the 65,535 bytes of payload (RFC 8200 §3).
const SAVED_SYN = 40 + 65535
const SOCKADDR_LL = 20
// Bytes cleared before each call: more than a sockaddr_in6, the longest address that is decoded.
const CLEARED = 32
// The buffer size that the kernel recommends for netlink dumps, <linux/netlink.h>.
const NETLINK_BUFFER = 32768

/** The process's libc, bound on first use; or a sentence that explains why it cannot be loaded. */
export function loadLibc (): Libc | string {
  return loaded ??= tryLoad()
}

let loaded: Libc | string | undefined

function tryLoad (): Libc | string {
  if (process.platform !== 'linux') return `TOA can be read on Linux only, this is ${process.platform}`
  try {
    // Not an import: this package must load without koffi and with --no-addons.
    return bind(require('koffi') as typeof Koffi)
  } catch (error) {
    return `koffi cannot be loaded (${(error as Error).message.split('\n', 1)[0]})`
  }
}

function bind (koffi: typeof Koffi): Libc {
  // null opens the process itself, and with it its libc, glibc or musl.
  const lib = koffi.load(null)
  // Memory that never moves, passed as a number: getpeername takes 0.48 µs, with a Buffer 0.55 µs.
  function allocate (size: number): [buffer: ArrayBuffer, address: number] {
    const memory = koffi.alloc('uint8_t', size)
    return [koffi.view(memory, size), Number(koffi.address(memory))]
  }

  const [memory, address] = allocate(SOCKADDR_STORAGE + 8)
  const bytes = new Uint8Array(memory, 0, SOCKADDR_STORAGE)
  const words = new Float64Array(memory, 0, CLEARED / 8)
  const [savedSynMemory, savedSynAddress] = allocate(SAVED_SYN)
  const [peekedMemory, peekedAddress] = allocate(PEEK_MAX)
  const family = new Uint16Array(memory, 0, 1)
  const integer = new Int32Array(memory, 0, 1)
  const optlen = new Uint32Array(memory, SOCKADDR_STORAGE, 1)
  const optlenAddress = address + SOCKADDR_STORAGE

  const getsockopt = lib.func('int getsockopt(int, int, int, uintptr_t, uintptr_t)')
  const setsockopt = lib.func('int setsockopt(int, int, int, uintptr_t, uint32_t)')
  const getpeername = lib.func('int getpeername(int, uintptr_t, uintptr_t)')
  const getsockname = lib.func('int getsockname(int, uintptr_t, uintptr_t)')
  const socket = lib.func('int socket(int, int, int)')
  const send = lib.func('intptr_t send(int, uintptr_t, size_t, int)')
  const recv = lib.func('intptr_t recv(int, uintptr_t, size_t, int)')
  const close = lib.func('int close(int)')

  // Four stores cost a quarter of fill().
  function clear (): void {
    words[0] = words[1] = words[2] = words[3] = 0
  }

  let diagMemory: [buffer: ArrayBuffer, address: number] | undefined

  return {
    bytes,
    sockaddr: new DataView(memory, 0, SOCKADDR_STORAGE),
    family: () => family[0] as number,
    getsockopt (fd, level, optname) {
      clear()
      optlen[0] = SOCKADDR_STORAGE
      return getsockopt(fd, level, optname, address, optlenAddress) === 0 ? 0 : koffi.errno()
    },
    savedSyn: new Uint8Array(savedSynMemory),
    readSavedSyn (fd) {
      optlen[0] = SAVED_SYN
      return getsockopt(fd, IPPROTO_TCP, TCP_SAVED_SYN, savedSynAddress, optlenAddress) === 0 ? optlen[0] as number : 0
    },
    setsockopt (fd, level, optname, value) {
      integer[0] = value
      return setsockopt(fd, level, optname, address, 4) === 0 ? 0 : koffi.errno()
    },
    getpeername (fd) {
      clear()
      optlen[0] = SOCKADDR_STORAGE
      return getpeername(fd, address, optlenAddress) === 0 ? 0 : koffi.errno()
    },
    getsockname (fd) {
      clear()
      optlen[0] = SOCKADDR_STORAGE
      return getsockname(fd, address, optlenAddress) === 0 ? 0 : koffi.errno()
    },
    peeked: new Uint8Array(peekedMemory),
    peek (fd) {
      const length: number = recv(fd, peekedAddress, PEEK_MAX, MSG_PEEK | MSG_DONTWAIT)
      return length < 0 ? -koffi.errno() : length
    },
    drop (fd, length) {
      const dropped: number = recv(fd, peekedAddress, length, MSG_DONTWAIT)
      return dropped < 0 ? -koffi.errno() : dropped
    },
    withSocket (probe) {
      const fd: number = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)
      if (fd < 0) return
      try {
        probe(fd)
      } finally {
        close(fd)
      }
    },
    openDiag () {
      const fd: number = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
      if (fd < 0) return koffi.errno()
      const [buffer, at] = diagMemory ??= allocate(NETLINK_BUFFER)
      return {
        buffer: new Uint8Array(buffer),
        send: (length) => send(fd, at, length, 0) < 0 ? koffi.errno() : 0,
        receive: () => {
          const length: number = recv(fd, at, NETLINK_BUFFER, MSG_DONTWAIT)
          return length < 0 ? -koffi.errno() : length
        },
        close: () => { close(fd) }
      }
    }
  }
}

/**
 * Opens a packet(7) socket for incoming and outgoing packets that pass `filter`, classic BPF as an array of struct
 * sock_filter. Returns the errno on failure; CAP_NET_RAW is required. Call it only if loadLibc() succeeded.
 */
export function openCapture (filter: Uint8Array): Capture | number {
  const koffi = require('koffi') as typeof Koffi
  const lib = koffi.load(null)
  const program = koffi.struct({ len: 'uint16_t', filter: 'uint8_t *' })
  const setsockopt = lib.func('setsockopt', 'int', ['int', 'int', 'int', koffi.pointer(program), 'uint32_t'])
  const recv = lib.func('intptr_t recv(int, _Out_ uint8_t *, size_t, int)')
  const close = lib.func('int close(int)')
  const bind = lib.func('int bind(int, const uint8_t *, uint32_t)')
  // SOCK_DGRAM omits link-layer headers. Protocol 0 receives nothing before bind(), so that no packet bypasses the
  // filter.
  const fd: number = lib.func('int socket(int, int, int)')(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
  if (fd < 0) return koffi.errno()
  setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, { len: filter.length / 8, filter }, koffi.sizeof(program))
  // struct sockaddr_ll: family, protocol in network byte order, and interface 0, which means all.
  const address = new DataView(new ArrayBuffer(SOCKADDR_LL))
  address.setUint16(0, AF_PACKET, endianness() === 'LE')
  address.setUint16(2, ETH_P_ALL)
  bind(fd, new Uint8Array(address.buffer), SOCKADDR_LL)
  const packet = new Uint8Array(SAVED_SYN)
  return {
    packet,
    receive: () => Math.max(0, recv(fd, packet, SAVED_SYN, MSG_DONTWAIT)),
    close: () => { close(fd) }
  }
}

// <asm/unistd_64.h>, <asm-generic/unistd.h>
const NR_BPF: Readonly<Record<string, number>> = { x64: 321, arm64: 280, riscv64: 280, loong64: 280 }
const RLIMIT_MEMLOCK = 8

/** Binds the system calls of `attach`; or returns a sentence that explains why it cannot. */
export function openBpf (): Bpf | string {
  const libc = loadLibc()
  if (typeof libc === 'string') return libc
  const number = NR_BPF[process.arch]
  if (number === undefined || endianness() !== 'LE') return `the eBPF programs do not support ${process.arch}`
  const koffi = require('koffi') as typeof Koffi
  const lib = koffi.load(null)
  const syscall = lib.func('intptr_t syscall(intptr_t, uintptr_t, uintptr_t, uintptr_t)')
  const flock = lib.func('int flock(int, int)')
  const setrlimit = lib.func('int setrlimit(int, _In_ uint64_t *)')
  const result = (value: number) => value < 0 ? -koffi.errno() : value

  // Copies bytes to memory that does not move; `back` copies them back and frees it.
  function place (bytes: Uint8Array, pointers: ReadonlyArray<Pointer> = []): { address: bigint, back: () => void } {
    const memory = koffi.alloc('uint8_t', bytes.length)
    const buffer = koffi.view(memory, bytes.length)
    const view = new Uint8Array(buffer)
    view.set(bytes)
    const placed = pointers.map(([offset, bytes, nested]) => {
      const pointed = place(bytes, nested)
      new DataView(buffer).setBigUint64(offset, pointed.address, true)
      return pointed
    })
    return {
      address: BigInt(koffi.address(memory)),
      back () {
        bytes.set(view)
        koffi.free(memory)
        for (const { back } of placed) back()
      }
    }
  }

  return {
    bpf (command, attr, pointers) {
      const { address, back } = place(attr, pointers)
      const returned = result(syscall(number, command, address, attr.length))
      back()
      return returned
    },
    flock: (fd, operation) => result(flock(fd, operation)),
    unlimitLockedMemory: () => result(setrlimit(RLIMIT_MEMLOCK, [0xffffffffffffffffn, 0xffffffffffffffffn]))
  }
}
