import { withChildren } from './child'
import type { Kernel } from './kernel'
import type { Family } from './network'
import type { Cores } from './figure'
import { median } from './statistics'

const WINDOWS = 4
// More than each variant takes for a slice forth and back.
const CONNECTIONS = 3000
// Until the times no longer improve: each variant has one connection in six or eight, and V8 needs some 7,000 calls to
// optimize the parsing of a SYN.
const WARM_UP = 60_000

/**
 * The median of the windows that each of `count` fresh server processes (turns.ts) measured, and its values that are
 * not numbers. Arguments of the server: HOST IN_A_ROW CLIENT_ADDRESS
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
