import { spawnSync } from 'node:child_process'
import { type Child, withChildren } from './child'
import { IPv4 } from './network'
import type { Row } from './report'
import type { Cores, Figure } from './run'
import { EVEN_TERMS, measureCosts, type Contestant, type Costs } from './slices'
import { estimate, median, ratios, shuffled } from './statistics'

const FEW = 100
const MANY = 15_000
// For what a process has open besides its connections.
const FILES = MANY + 500
const SESSIONS = 10
const PAIRS_IN_SESSION = 5
const FLAT = 1.1
const work = { question: 'connections', warmUp: 10_000, slice: 60, rounds: 5 }

const names = ['plain', 'fastify-real-ip', 'fastify-real-ip, trustedPeers']

/** Server CPU of a new connection, with a request on it, while many others are open ÷ while few are. */
export const open: Figure = {
  name: 'open',
  title: `server CPU of one more connection with ${MANY.toLocaleString('en')} open ÷ with ${FEW} open`,
  async measure ({ cores, progress }) {
    const limit = Number(spawnSync('sh', ['-c', 'ulimit -Hn'], { encoding: 'utf8' }).stdout)
    if (limit < FILES) return names.map((name) => ({ name, notShown: `a process may have no more than ${limit} files open` }))
    const sessions: Costs[] = []
    for (let session = 0; session < SESSIONS; session++) {
      progress(`${session} of ${SESSIONS} sessions`)
      sessions.push(await runSession(cores))
    }
    const of = (name: string, costs: Costs) => costs[name] as number[]
    const ratio = (over: string, under: string) => estimate(sessions.map((costs) => ratios(of(over, costs), of(under, costs))))
    // Node.js itself is not flat.
    const growth = (name: string) => estimate(sessions.map((costs) =>
      ratios(ratios(of(`${name}, ${MANY}`, costs), of(`plain, ${MANY}`, costs)), ratios(of(`${name}, ${FEW}`, costs), of(`plain, ${FEW}`, costs)))))
    const microseconds = (name: string) => median(sessions.flatMap((costs) => of(name, costs)))
    const control = ratio(`plain, ${FEW}, again`, `plain, ${FEW}`)
    return [
      ...names.map((name): Row => ({
        name,
        value: ratio(`${name}, ${MANY}`, `${name}, ${FEW}`),
        control,
        absolute: { microseconds: microseconds(`${name}, ${MANY}`), withFewMicroseconds: microseconds(`${name}, ${FEW}`) }
      })),
      ...names.slice(1).flatMap((name): Row[] => [
        ...[FEW, MANY].map((count) => ({
          name: `${name} ÷ plain, both with ${count.toLocaleString('en')} open`, value: ratio(`${name}, ${count}`, `plain, ${count}`), control
        })),
        { name: `${name}: the latter ÷ the former`, value: growth(name), control, target: FLAT }
      ])
    ]
  }
}

function runSession (cores: Cores | undefined): Promise<Costs> {
  return withChildren(async (fresh) => {
    const client = await fresh('client', [], { core: cores?.client })
    const contestants: Contestant[] = []
    const held: Array<{ readonly server: Child, readonly count: number }> = []
    const add = async (name: string, count: number, again: string) => {
      const server = await fresh('server', [name, IPv4.host], { core: cores?.server, node: EVEN_TERMS })
      const target = { ...IPv4, port: await server.ask<number>('port') }
      // A process of its own each, for the limit of open files is one of processes.
      const holder = await fresh('client', [], { core: cores?.client })
      await holder.ask('idle', { ...target, count })
      held.push({ server, count })
      contestants.push({ name: `${name}, ${count}${again}`, server, client, target })
    }
    // Whoever is started first or last is so by chance.
    const all = names.flatMap((name) => [FEW, MANY].map((count) => ({ name, count, again: '' })))
    for (const { name, count, again } of shuffled([...all, { name: 'plain', count: FEW, again: ', again' }])) await add(name, count, again)
    const costs = await measureCosts(contestants, work, PAIRS_IN_SESSION)
    // Node.js closes what has sent nothing for a minute or so: then the session took too long.
    for (const { server, count } of held) {
      const left = await server.ask<number>('connections')
      if (left < count) throw new Error(`${left} of ${count} connections are still open: this machine is too busy`)
    }
    return costs
  })
}
