import { withChildren } from './child'
import { type Family, IPv4, IPv6 } from './network'
import type { Cores, Figure } from './figure'
import type { Memory } from './server'
import { estimate, forthAndBack, median } from './statistics'

const CONNECTIONS = 10_000
const ROUNDS = 3
// The first connections create everything that exists once.
const WARM_UP = 3000

const targets: Readonly<Record<string, number>> = { 'fastify-real-ip': 100, 'fastify-real-ip, trustedPeers': 220 }
const names = ['plain', 'control', ...Object.keys(targets)]

/** Per connection. */
interface Bytes {
  readonly idle: Memory
  readonly asked: Memory
}

/**
 * Heap per idle connection beyond plain Fastify, and RSS ÷ its RSS, after a garbage collection; fresh processes per
 * round.
 */
export const idle: Figure = {
  name: 'idle',
  title: `memory per idle connection over plain Fastify, ${CONNECTIONS.toLocaleString('en')} connections`,
  async measure ({ sessions = ROUNDS, progress, cores }) {
    const rows = []
    for (const network of [IPv4, IPv6]) {
      const { family } = network
      const bytes: Record<string, Bytes[]> = Object.fromEntries(names.map((name) => [name, []]))
      for (let round = 0; round < sessions; round++) {
        progress(`${family}, ${round + 1} of ${sessions} rounds`)
        for (const name of forthAndBack(names).slice(0, names.length)) {
          bytes[name]?.push(await memoryPerConnection(name, network, cores))
        }
      }
      const all = (name: string) => bytes[name] as Bytes[]
      const more = (name: string, when: keyof Bytes) => estimate(all(name).map(
        (round, i) => round[when].heap - (all('plain')[i] as Bytes)[when].heap))
      const rss = (name: string) =>
        estimate(all(name).map(({ idle }, i) => idle.rss / (all('plain')[i] as Bytes).idle.rss))
      const absolute = (name: string, what: keyof Memory) => ({
        bytes: Math.round(median(all(name).map(({ idle }) => idle[what]))),
        plainBytes: Math.round(median(all('plain').map(({ idle }) => idle[what])))
      })
      for (const [name, target] of Object.entries(targets)) {
        const under = name.replace('fastify-real-ip', family)
        rows.push({
          name: `heap, ${under}, never asked`,
          unit: 'B' as const,
          value: more(name, 'idle'),
          control: more('control', 'idle'),
          target,
          absolute: absolute(name, 'heap')
        }, {
          name: `heap, ${under}, request.realIp asked once`,
          unit: 'B' as const,
          value: more(name, 'asked'),
          control: more('control', 'asked')
        }, {
          name: `RSS, ${under}, ratio`,
          value: rss(name),
          control: rss('control'),
          absolute: absolute(name, 'rss')
        })
      }
    }
    return rows
  }
}

function memoryPerConnection (name: string, { host, from }: Family, cores: Cores | undefined): Promise<Bytes> {
  return withChildren(async (fresh) => {
    const server = await fresh('server', [name, host], { core: cores?.server, node: ['--expose-gc'] })
    const client = await fresh('client', [], { core: cores?.client })
    const target = { port: await server.ask<number>('port'), host, from }

    const accepted = async (count: number) => {
      while (await server.ask<number>('connections') !== count);
    }
    // Later connections reuse heap that the first ones left: RSS is compared from here.
    const { rss: atStart } = await server.ask<Memory>('memory')
    await client.ask('idle', { ...target, count: WARM_UP })
    await client.ask('askEach', target)
    await client.ask('hangUp', target)
    await accepted(0)
    const { heap: base } = await server.ask<Memory>('memory')
    const perConnection = async (): Promise<Memory> => {
      const { heap, rss } = await server.ask<Memory>('memory')
      return { heap: (heap - base) / CONNECTIONS, rss: (rss - atStart) / CONNECTIONS }
    }
    await client.ask('idle', { ...target, count: CONNECTIONS })
    await accepted(CONNECTIONS)
    const idle = await perConnection()
    await client.ask('askEach', target)
    return { idle, asked: await perConnection() }
  })
}
