import { constants } from 'node:os'
import type * as Koffi from 'koffi' with { 'resolution-mode': 'import' }
import { SOCKADDR_STORAGE } from './sockaddr'

// <linux/socket.h>, <linux/in.h>
const AF_INET = 2
const SOCK_STREAM = 1
const SOCK_CLOEXEC = 0o2000000

/**
 * The system calls, each with its one shared answer buffer: what a call wrote is there until the next call.
 * Calls return 0, or the errno of the failure; they never throw.
 */
export interface Libc {
  /** The answer of the last call. Cleared before each, for a short answer must not show the one before it. */
  readonly answer: Uint8Array
  /** `sa_family` of the answer, in the machine's own byte order. */
  family (): number
  /** getsockopt(2), with a buffer of 128 bytes. */
  getsockopt (fd: number, level: number, optname: number): number
  /** getpeername(2), with a buffer of 128 bytes. */
  getpeername (fd: number): number
  /** Opens a TCP socket, gives it to `probe` and closes it again; without a socket to be had, `probe` is not called. */
  withSocket (probe: (fd: number) => void): void
}

/** The name of an errno, e.g. `'ENOPROTOOPT'`. */
export function errnoName (errno: number): string {
  return errnoNames[errno] ?? `errno ${errno}`
}

const errnoNames: string[] = []
for (const [name, errno] of Object.entries(constants.errno)) errnoNames[errno] ??= name

/** The process's libc, bound on first use; or the sentence that says why it cannot be had. */
export function loadLibc (): Libc | string {
  return loaded ??= tryLoad()
}

let loaded: Libc | string | undefined

function tryLoad (): Libc | string {
  if (process.platform !== 'linux') return `TOA is read from Linux, this is ${process.platform}`
  try {
    // Not an import: importing this package must work where koffi is missing or addons are forbidden.
    return bind(require('koffi') as typeof Koffi)
  } catch (error) {
    return `koffi cannot be loaded (${(error as Error).message.split('\n', 1)[0]})`
  }
}

function bind (koffi: typeof Koffi): Libc {
  // null is the process itself: its libc, whether glibc or musl.
  const lib = koffi.load(null)
  // Memory that never moves, passed as a plain number: the cheapest way through koffi by far.
  const memory = koffi.alloc('uint8_t', SOCKADDR_STORAGE + 8)
  const address = Number(koffi.address(memory))
  const view = koffi.view(memory, SOCKADDR_STORAGE + 8)
  const answer = new Uint8Array(view, 0, SOCKADDR_STORAGE)
  const words = new Float64Array(view, 0, SOCKADDR_STORAGE / 8)
  const family = new Uint16Array(view, 0, 1)
  const optlen = new Uint32Array(view, SOCKADDR_STORAGE, 1)
  const optlenAddress = address + SOCKADDR_STORAGE

  const getsockopt = lib.func('int getsockopt(int, int, int, uintptr_t, uintptr_t)')
  const getpeername = lib.func('int getpeername(int, uintptr_t, uintptr_t)')
  const socket = lib.func('int socket(int, int, int)')
  const close = lib.func('int close(int)')

  return {
    answer,
    family: () => family[0] as number,
    getsockopt (fd, level, optname) {
      words.fill(0)
      optlen[0] = SOCKADDR_STORAGE
      return getsockopt(fd, level, optname, address, optlenAddress) === 0 ? 0 : koffi.errno()
    },
    getpeername (fd) {
      words.fill(0)
      optlen[0] = SOCKADDR_STORAGE
      return getpeername(fd, address, optlenAddress) === 0 ? 0 : koffi.errno()
    },
    withSocket (probe) {
      const fd: number = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)
      if (fd < 0) return
      try {
        probe(fd)
      } finally {
        close(fd)
      }
    }
  }
}
