import { once } from 'node:events'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import type * as Koffi from 'koffi' with { 'resolution-mode': 'import' }
import { fdOf } from '../lib/node/sockets'
import { loadLibc } from '../lib/kernel/libc'
import { answer } from './child'
import { forthAndBack, median, ratios } from './statistics'

// The same system call on the same socket, through lib/kernel/libc and in C: node syscall-loop.js LIBRARY

/** A getsockopt(2) is named after its optname. */
export type Call = 'getpeername' | '1348' | '1349'

export interface Slices {
  readonly ratio: number
  readonly control: number
  /** The time of one call in C */
  readonly nanoseconds: number
  /** 0 if the call succeeded */
  readonly errno: number
}

// About a millisecond: shorter than a scheduler's time slice, long enough for the clock's resolution.
const CALLS = 2000
const SLICES = 40

type Loop = (fd: number, calls: number) => number
let reason = 0

async function main (library: string): Promise<void> {
  const libc = loadLibc()
  if (typeof libc === 'string') throw new Error(libc)
  const koffi = require('koffi') as typeof Koffi
  const loops = koffi.load(library)
  const getpeername: Loop = loops.func('double loop_getpeername(int, int)')
  const getsockopt: (fd: number, optname: number, calls: number) => number =
    loops.func('double loop_getsockopt(int, int, int)')
  const inC: Record<Call, Loop> = {
    getpeername,
    1348: (fd, calls) => getsockopt(fd, 1348, calls),
    1349: (fd, calls) => getsockopt(fd, 1349, calls)
  }
  const getsockoptThroughLibc = (optname: number): Loop => (fd, calls) => {
    const start = performance.now()
    for (let i = 0; i < calls; i++) reason = libc.getsockopt(fd, 0, optname)
    return (performance.now() - start) * 1e6
  }
  const throughLibc: Record<Call, Loop> = {
    getpeername (fd, calls) {
      const start = performance.now()
      for (let i = 0; i < calls; i++) reason = libc.getpeername(fd)
      return (performance.now() - start) * 1e6
    },
    1348: getsockoptThroughLibc(1348),
    1349: getsockoptThroughLibc(1349)
  }

  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const accepted = once(server, 'connection') as Promise<[Socket]>

  answer({
    port: () => (server.address() as AddressInfo).port,
    async measure (call: Call): Promise<Slices> {
      const [socket] = await accepted
      const fd = fdOf(socket)
      const loop = { libc: throughLibc[call], c: inC[call], control: inC[call] }
      const times = { libc: [] as number[], c: [] as number[], control: [] as number[] }
      const names = Object.keys(loop) as Array<keyof typeof loop>
      for (let slice = -10; slice < SLICES; slice++) {
        const spent = { libc: 0, c: 0, control: 0 }
        for (const name of forthAndBack(names)) spent[name] += loop[name](fd, CALLS) / (2 * CALLS)
        if (slice >= 0) for (const name of names) times[name].push(spent[name])
      }
      loop.libc(fd, 1)
      return {
        ratio: median(ratios(times.libc, times.c)),
        control: median(ratios(times.control, times.c)),
        nanoseconds: median(times.c),
        errno: reason
      }
    }
  })
}

main(process.argv[2] as string)
