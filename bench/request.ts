import { start, type Child } from './child'
import { IPv4 } from './network'
import type { Cores, Figure } from './run'
import { estimate, forthAndBack, median, ratios } from './statistics'
import { variants } from './variants'

// Fresh processes take their time to warm up, so each session gives several pairs.
const PAIRS_IN_SESSION = 5

interface Workload {
  readonly name: string
  readonly question: string
  readonly warmUp: number
  readonly slice: number
  /** by variant */
  readonly targets: Readonly<Record<string, number>>
}

/** A slice keeps a server busy for a tenth of a second or so; warm is what no longer gets faster. */
const workloads: readonly Workload[] = [
  { name: 'keep-alive', question: 'requests', warmUp: 20_000, slice: 8000, targets: { 'fastify-real-ip': 1.015, 'fastify-real-ip, trustedPeers': 1.015 } },
  { name: 'one connection per request', question: 'connections', warmUp: 8000, slice: 1500, targets: { 'fastify-real-ip': 1.05 } }
]

interface Contestant {
  readonly name: string
  readonly server: Child
  readonly port: number
}

/** CPU per request in microseconds, by workload and variant: a value for each slice there and back. */
type Costs = Record<string, Record<string, number[]>>

/** Server CPU per request ÷ plain Fastify. */
export const request: Figure = {
  name: 'request',
  title: 'server CPU per request ÷ plain Fastify',
  async measure ({ pairs, cores, progress }) {
    const names = Object.keys(variants)
    const sessions: Costs[] = []
    for (let done = 0; done < pairs; done += PAIRS_IN_SESSION) {
      progress(`${done} of ${pairs} pairs`)
      sessions.push(await runSession(names, Math.min(PAIRS_IN_SESSION, pairs - done), cores))
    }

    return workloads.flatMap(({ name: workload, targets }) => {
      const of = (name: string, costs: Costs) => costs[workload]?.[name] as number[]
      const overPlain = (name: string) => estimate(sessions.map((costs) => ratios(of(name, costs), of('plain', costs))))
      const microseconds = (name: string) => median(sessions.flatMap((costs) => of(name, costs)))
      const control = overPlain('control')
      return names.filter((name) => name !== 'plain' && name !== 'control').map((name) => ({
        name: `${workload}: ${name}`,
        value: overPlain(name),
        control,
        ...(targets[name] !== undefined && { target: targets[name] }),
        absolute: { microseconds: microseconds(name), plainMicroseconds: microseconds('plain') }
      }))
    })
  }
}

async function runSession (names: string[], pairs: number, cores: Cores | undefined): Promise<Costs> {
  const children: Child[] = []
  const fresh = async (...args: Parameters<typeof start>) => {
    const child = await start(...args)
    children.push(child)
    return child
  }
  try {
    const client = await fresh('client', [], { core: cores?.client })
    const contestants: Contestant[] = []
    for (const name of forthAndBack(names).slice(0, names.length)) {
      const server = await fresh('server', [name, IPv4.host], { core: cores?.server })
      contestants.push({ name, server, port: await server.ask<number>('port') })
    }
    const costs: Costs = {}
    for (const { name: workload, question, warmUp, slice } of workloads) {
      const cost: Record<string, number[]> = costs[workload] = Object.fromEntries(names.map((name) => [name, []]))
      for (const { port } of contestants) await client.ask(question, { ...IPv4, port, count: warmUp })
      for (let pair = 0; pair < pairs; pair++) {
        for (const name of names) cost[name]?.push(0)
        for (const { name, server, port } of forthAndBack(contestants)) {
          const before = await server.ask<number>('cpu')
          await client.ask(question, { ...IPv4, port, count: slice })
          const spent = await server.ask<number>('cpu') - before
          const values = cost[name] as number[]
          values[pair] = values[pair] as number + spent / (2 * slice)
        }
      }
    }
    return costs
  } finally {
    await Promise.all(children.map((child) => child.stop()))
  }
}
