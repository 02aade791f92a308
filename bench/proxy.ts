import { encodeProxyHeader } from 'fastify-real-ip'
import { withChildren } from './child'
import { IPv4 } from './network'
import type { Row } from './report'
import type { Cores, Figure } from './figure'
import { measureCosts, type Contestant, type Costs } from './slices'
import { estimate, median, shuffled } from './statistics'
import { findhit, proxies } from './variants'

const SESSIONS = 12
const work = { question: 'connections', warmUp: 6000, slice: 60, rounds: 8 }
// The server has accepted the connection, and has nothing else to do, before its first bytes are sent.
const PAUSE = 5 // milliseconds

const ends = { source: { address: '203.0.113.7', port: 51234 }, destination: { address: '198.51.100.1', port: 443 } }
const hex = (version: 1 | 2) => encodeProxyHeader({ version, ...ends }).toString('hex')

interface Way {
  readonly name: string
  readonly pause?: number
  /** Of the ratio to the plugin without a header. */
  readonly target: number
}

// Where a header is to be there at once, connections are accepted only with their first bytes (TCP_DEFER_ACCEPT).
const ways: readonly Way[] = [
  { name: 'in the first segment', target: 1.1 },
  { name: 'held: in a later segment', pause: PAUSE, target: 1.35 }
]

interface Contender {
  readonly name: string
  readonly variant: keyof typeof proxies
  readonly header?: string
}

const NONE = 'no header'
const CONTROL = 'no header, again'
const contenders: readonly Contender[] = [
  { name: NONE, variant: 'PROXY headers of others' },
  { name: CONTROL, variant: 'PROXY headers of others' },
  { name: 'a header of version 2', variant: 'PROXY headers', header: hex(2) },
  { name: 'a header of version 1', variant: 'PROXY headers', header: hex(1) },
  ...findhit === undefined
    ? []
    : [{ name: 'findhit-proxywrap, a header of version 1', variant: 'findhit-proxywrap', header: hex(1) }]
]

/** Server CPU of a connection with a PROXY header ÷ one of the same plugin that has none to read. */
export const proxy: Figure = {
  name: 'proxy',
  title: 'server CPU per request ÷ the same plugin without a PROXY header: one connection per request',
  async measure ({ sessions: count = SESSIONS, cores, progress }) {
    const rows: Row[] = []
    for (const way of ways) {
      const sessions: Costs[] = []
      while (sessions.length < count) {
        progress(`${way.name}, ${sessions.length} of ${count} sessions`)
        sessions.push(await runSession(way, cores))
      }
      rows.push(...toRows(way, sessions))
    }
    return rows
  }
}

function runSession ({ pause }: Way, cores: Cores | undefined): Promise<Costs> {
  return withChildren(async (fresh) => {
    const client = await fresh('client', [], { core: cores?.client })
    const contestants: Contestant[] = []
    for (const { name, variant, header } of shuffled(contenders)) {
      const server = await fresh('server', [variant, IPv4.host], { core: cores?.server })
      if (pause === undefined) await server.ask('deferAccept')
      const port = await server.ask<number>('port')
      contestants.push({ name, server, client, target: { ...IPv4, port, header, pause } })
    }
    return await measureCosts(contestants, work)
  })
}

function toRows ({ name: way, target }: Way, sessions: readonly Costs[]): Row[] {
  const of = (name: string, costs: Costs) => costs[name] as number
  const over = (name: string, under: (costs: Costs) => number) =>
    estimate(sessions.map((costs) => of(name, costs) / under(costs)))
  const both = (costs: Costs) => (of(NONE, costs) + of(CONTROL, costs)) / 2
  const control = over(CONTROL, (costs) => of(NONE, costs))
  const rows: Row[] = contenders.filter(({ header }) => header !== undefined).map(({ name, variant }) => ({
    name: `${name}, ${way}`,
    value: over(name, both),
    control,
    samplesNeeded: SESSIONS,
    ...variant === 'PROXY headers' && { target },
    absolute: {
      microseconds: median(sessions.map((costs) => of(name, costs))),
      withoutMicroseconds: median(sessions.map(both))
    }
  }))
  return findhit === undefined ? [...rows, { name: `findhit-proxywrap, ${way}`, notShown: 'it is not installed' }] : rows
}
