import { start, type Child } from './child'
import { type Family, IPv4, IPv6 } from './network'
import type { Cores, Figure } from './run'
import { estimate, forthAndBack } from './statistics'

const CONNECTIONS = 10_000
const ROUNDS = 3
// Everything that is made once, for the first connections, is made by these.
const WARM_UP = 3000

const targets: Readonly<Record<string, number>> = { 'fastify-real-ip': 100, 'fastify-real-ip, trustedPeers': 220 }
const names = ['plain', 'control', ...Object.keys(targets)]

interface Bytes {
  readonly idle: number
  readonly asked: number
}

/** Heap per idle connection over plain Fastify, after a collection. Each round has fresh processes. */
export const heap: Figure = {
  name: 'heap',
  title: `heap per idle connection over plain Fastify, ${CONNECTIONS} connections`,
  async measure ({ progress, cores }) {
    const rows = []
    for (const network of [IPv4, IPv6]) {
      const { family } = network
      const bytes: Record<string, Bytes[]> = Object.fromEntries(names.map((name) => [name, []]))
      for (let round = 0; round < ROUNDS; round++) {
        progress(`${family}, ${round + 1} of ${ROUNDS} rounds`)
        for (const name of forthAndBack(names).slice(0, names.length)) {
          bytes[name]?.push(await heapPerConnection(name, network, cores))
        }
      }
      const overPlain = (name: string, when: keyof Bytes) => estimate((bytes[name] as Bytes[]).map(
        (round, i) => [round[when] - (bytes['plain']?.[i] as Bytes)[when]]))
      for (const [name, target] of Object.entries(targets)) {
        const under = name.replace('fastify-real-ip', family)
        rows.push({
          name: `${under}, never asked`,
          unit: 'B' as const,
          value: overPlain(name, 'idle'),
          control: overPlain('control', 'idle'),
          target
        }, {
          name: `${under}, request.realIp asked once`,
          unit: 'B' as const,
          value: overPlain(name, 'asked'),
          control: overPlain('control', 'asked')
        })
      }
    }
    return rows
  }
}

async function heapPerConnection (
  name: string, { host, from }: Family, cores: Cores | undefined
): Promise<Bytes> {
  const children: Child[] = []
  try {
    const server = await start('server', [name, host], { core: cores?.server, node: ['--expose-gc'] })
    children.push(server)
    const client = await start('client', [], { core: cores?.client })
    children.push(client)
    const target = { port: await server.ask<number>('port'), host, from }

    const perConnection = async (base: number) => (await server.ask<number>('heap') - base) / CONNECTIONS
    const accepted = async (count: number) => {
      while (await server.ask<number>('connections') !== count);
    }
    await client.ask('idle', { ...target, count: WARM_UP })
    await client.ask('askEach', target)
    await client.ask('hangUp', target)
    await accepted(0)
    const base = await server.ask<number>('heap')
    await client.ask('idle', { ...target, count: CONNECTIONS })
    await accepted(CONNECTIONS)
    const idle = await perConnection(base)
    await client.ask('askEach', target)
    return { idle, asked: await perConnection(base) }
  } finally {
    await Promise.all(children.map((child) => child.stop()))
  }
}
