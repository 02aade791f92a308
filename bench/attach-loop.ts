import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type * as Koffi from 'koffi' with { 'resolution-mode': 'import' }
import { attach, detach } from '../lib/attach/companion'
import { documentFormats } from '../lib/attach/config'
import { type Bpf, openBpf } from '../lib/kernel/libc'
import { answer } from './child'
import { forthAndBack, median, ratios } from './statistics'

// node attach-loop.js LIBRARY, in a mount namespace with a BPF file system of its own

export interface Cgroups {
  readonly attached: string
  readonly bare: string
  /** Has a list of 1,000 entries; the other cgroup has ten. */
  readonly thousand: string
  /** Connections from this cgroup carry TOA. */
  readonly client: string
  /** Connections from this cgroup carry none. */
  readonly silent: string
}

type What = 'answered' | 'without-toa' | 'same-cgroup' | 'other-cgroup' | 'connection' | 'list'

/** Medians of one process. */
export interface Measured {
  readonly ratios: Record<What, number>
  readonly controls: Record<What, number>
}

const IP_TTL = 2
const CALLS = 2000
// Slices that are shorter than most interruptions, and many of them: their lowest decile is compared.
const CONNECTIONS = 50
const CONNECTION_SLICES = 200
const SLICES = 40
const TOGGLES = 20
const bpffs = '/sys/fs/bpf'

function main (library: string): void {
  const koffi = require('koffi') as typeof Koffi
  const loops = koffi.load(library)
  const listen: () => number = loops.func('int listen_on_loopback()')
  const connectionOf: (listener: number) => number = loops.func('int connection_of(int)')
  const getsockopt: (fd: number, optname: number, calls: number) => number =
    loops.func('double loop_getsockopt(int, int, int)')
  const connections: (listener: number, count: number) => number = loops.func('double loop_connections(int, int)')
  const bpf = openBpf() as Bpf
  const enter = (cgroup: string) => { writeFileSync(join(cgroup, 'cgroup.procs'), String(process.pid)) }
  const listenIn = (cgroup: string) => {
    enter(cgroup)
    return listen()
  }
  const connectFrom = (cgroup: string, listener: number) => {
    enter(cgroup)
    return connectionOf(listener)
  }
  // The last entry matches.
  const list = (length: number) => [...Array.from({ length: length - 1 }, (_, i) => `10.1.${i >> 8}.${i & 255}`), '127.0.0.1']
  const attachTo = (cgroup: string, length: number) => {
    attach(bpf, {
      ...{ cgroup, bpffs, version: 'bench', verbose: false, getpeername: false },
      trustedPeers: list(length),
      formats: documentFormats
    })
  }
  const detachFrom = (cgroup: string) => { detach(bpf, { cgroup }, bpffs) }

  /** Times both, and the second against itself, slice by slice. */
  function slice (a: () => number, b: () => number, slices: number): Record<'a' | 'b' | 'control', number[]> {
    const measures = { a, b, control: b }
    const times = { a: [] as number[], b: [] as number[], control: [] as number[] }
    const names = Object.keys(measures) as Array<keyof typeof measures>
    for (let slice = -10; slice < slices; slice++) {
      const spent = { a: 0, b: 0, control: 0 }
      for (const name of forthAndBack(names)) spent[name] += measures[name]()
      if (slice >= 0) for (const name of names) times[name].push(spent[name])
    }
    return times
  }

  function compareCalls (a: () => number, b: () => number): { ratio: number, control: number } {
    const times = slice(a, b, SLICES)
    return { ratio: median(ratios(times.a, times.b)), control: median(ratios(times.control, times.b)) }
  }

  function compareConnections (a: number, b: number): { ratio: number, control: number } {
    const times = slice(() => connections(a, CONNECTIONS), () => connections(b, CONNECTIONS), CONNECTION_SLICES)
    const low = (values: number[]) => median([...values].sort((x, y) => x - y).slice(0, CONNECTION_SLICES / 5))
    return { ratio: low(times.a) / low(times.b), control: low(times.control) / low(times.b) }
  }

  /** Attaches and detaches between the slices. */
  function toggle (cgroup: string, measure: () => number): { ratio: number, control: number } {
    const times = { with: [] as number[], without: [] as number[], control: [] as number[] }
    const once = () => Math.min(...Array.from({ length: 9 }, measure))
    for (let turn = 0; turn < TOGGLES; turn++) {
      for (const state of forthAndBack(['with', 'without', 'control'] as const)) {
        if (state === 'with') attachTo(cgroup, 10)
        once()
        times[state].push(once())
        if (state === 'with') detachFrom(cgroup)
      }
    }
    return { ratio: median(ratios(times.with, times.without)), control: median(ratios(times.control, times.without)) }
  }

  answer({
    measure (cgroups: Cgroups): Measured {
      const { attached, bare, thousand, client, silent } = cgroups
      const listeners = { attached: listenIn(attached), bare: listenIn(bare), thousand: listenIn(thousand) }
      attachTo(attached, 10)
      attachTo(thousand, 1000)
      const sockets = {
        claiming: connectFrom(client, listeners.attached),
        without: connectFrom(silent, listeners.attached),
        bare: connectFrom(silent, listeners.bare)
      }
      enter(client)
      const compared: Partial<Record<What, { ratio: number, control: number }>> = {
        answered: compareCalls(() => getsockopt(sockets.claiming, 1348, CALLS),
          () => getsockopt(sockets.bare, 1348, CALLS)),
        'without-toa': compareCalls(() => getsockopt(sockets.without, 1348, CALLS),
          () => getsockopt(sockets.bare, 1348, CALLS)),
        'same-cgroup': compareCalls(() => getsockopt(sockets.claiming, IP_TTL, CALLS),
          () => getsockopt(sockets.bare, IP_TTL, CALLS)),
        connection: compareConnections(listeners.attached, listeners.bare),
        list: compareConnections(listeners.thousand, listeners.attached)
      }
      detachFrom(thousand)
      detachFrom(attached)
      compared['other-cgroup'] = toggle(attached, () => getsockopt(sockets.bare, IP_TTL, CALLS))
      enter(bare)
      const of = (what: 'ratio' | 'control') =>
        Object.fromEntries(Object.entries(compared).map(([name, figures]) =>
          [name, figures[what]])) as Record<What, number>
      return { ratios: of('ratio'), controls: of('control') }
    }
  })
}

main(process.argv[2] as string)
