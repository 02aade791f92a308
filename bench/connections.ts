import { withChildren } from './child'
import type { Kernel } from './kernel'
import type { Family } from './network'
import type { Cores } from './figure'
import { median } from './statistics'

const WINDOWS = 6
// More than each thing takes for a slice forth and another back.
const CONNECTIONS = 3000
// As many as it takes until what is measured no longer gets faster: each thing has one in six or eight of them, and V8
// takes some 7,000 calls to be done with the walk of a SYN.
const WARM_UP = 60_000

/**
 * What each of `count` fresh processes of a server that takes turns (turns.ts) measured: the median of its windows, and
 * what it says besides that is no number. The server gets: HOST IN_A_ROW CLIENT'S_ADDRESS
 */
export async function sessions<Times extends Readonly<Record<keyof Times, number | string>>> (
  script: string, { host, from }: Family, inARow: number, count: number, kernel: Kernel, cores: Cores | undefined,
  progress: (done: string) => void
): Promise<Times[]> {
  const measured: Times[] = []
  for (let session = 0; session < count; session++) {
    progress(`${session + 1} of ${count} sessions`)
    measured.push(await withChildren(async (fresh) => {
      const place = { core: cores?.server, cgroup: kernel.serverCgroup }
      const server = await fresh(script, [host, String(inARow), from ?? host], place)
      const client = await fresh('client', [], { core: cores?.client, cgroup: kernel.clientCgroup })
      const target = { port: await server.ask<number>('port'), host, from }
      await client.ask('connections', { ...target, count: WARM_UP })
      await server.ask('times')
      const windows: Times[] = []
      for (let i = 0; i < WINDOWS; i++) {
        await client.ask('connections', { ...target, count: CONNECTIONS })
        windows.push(await server.ask<Times>('times'))
      }
      return middleOf(windows)
    }))
  }
  return measured
}

function middleOf<Times extends Readonly<Record<keyof Times, number | string>>> (windows: readonly Times[]): Times {
  const last = windows.at(-1) as Times
  const names = Object.keys(last) as Array<keyof Times>
  return Object.fromEntries(names.map((name) =>
    [name, typeof last[name] === 'string' ? last[name] : median(windows.map((times) => times[name] as number))]
  )) as unknown as Times
}
