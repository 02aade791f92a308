import { spawnSync } from 'node:child_process'
import { type Child, withChildren } from './child'
import { IPv4 } from './network'
import type { Row } from './report'
import type { Cores, Figure } from './figure'
import { measureCosts, type Contestant, type Costs } from './slices'
import { estimate, median, shuffled } from './statistics'
import { plugins } from './variants'

const FEW = 100
const MANY = 15_000
// Descriptors that a process has open besides its connections.
const FILES = MANY + 500
const SESSIONS = 4
const FLAT = 1.1
const work = { question: 'connections', warmUp: 10_000, slice: 60, rounds: 10 }

// Plain Fastify runs twice: the ratio of both is the control, and the plugin is compared to their mean.
const names = ['plain', 'control', ...plugins]
const BOTH = 'both'

/** Server CPU of a new connection with a request, while many others are open ÷ while few are. */
export const open: Figure = {
  name: 'open',
  title: `server CPU of one more connection with ${MANY.toLocaleString('en')} open ÷ with ${FEW} open`,
  async measure ({ sessions: count = SESSIONS, cores, progress }) {
    const limit = Number(spawnSync('sh', ['-c', 'ulimit -Hn'], { encoding: 'utf8' }).stdout)
    if (limit < FILES) {
      const notShown = `a process may have no more than ${limit} files open`
      return ['plain', ...plugins].map((name) => ({ name, notShown }))
    }
    const sessions: Costs[] = []
    while (sessions.length < count) {
      progress(`${sessions.length} of ${count} sessions`)
      sessions.push(withBoth(await runSession(cores)))
    }
    const of = (name: string, costs: Costs) => costs[name] as number
    const ratio = (over: string, under: string) =>
      estimate(sessions.map((costs) => of(over, costs) / of(under, costs)))
    // Node.js itself is not constant.
    const growth = (over: string, under: string) => estimate(sessions.map((costs) =>
      (of(`${over}, ${MANY}`, costs) / of(`${under}, ${MANY}`, costs)) /
        (of(`${over}, ${FEW}`, costs) / of(`${under}, ${FEW}`, costs))))
    const microseconds = (name: string) => median(sessions.map((costs) => of(name, costs)))
    const control = growth('control', 'plain')
    return [
      ...[BOTH, ...plugins].map((name): Row => ({
        name: name === BOTH ? 'plain' : name,
        value: ratio(`${name}, ${MANY}`, `${name}, ${FEW}`),
        control,
        absolute: {
          microseconds: microseconds(`${name}, ${MANY}`),
          withFewMicroseconds: microseconds(`${name}, ${FEW}`)
        }
      })),
      ...plugins.flatMap((name): Row[] => [
        ...[FEW, MANY].map((count) => ({
          name: `${name} ÷ plain, both with ${count.toLocaleString('en')} open`,
          value: ratio(`${name}, ${count}`, `${BOTH}, ${count}`),
          control: ratio(`control, ${count}`, `plain, ${count}`)
        })),
        { name: `${name}: the latter ÷ the former`, value: growth(name, BOTH), control, target: FLAT }
      ])
    ]
  }
}

function withBoth (costs: Costs): Costs {
  const both = [FEW, MANY].map((count) =>
    [`${BOTH}, ${count}`, ((costs[`plain, ${count}`] as number) + (costs[`control, ${count}`] as number)) / 2])
  return { ...costs, ...Object.fromEntries(both) }
}

function runSession (cores: Cores | undefined): Promise<Costs> {
  return withChildren(async (fresh) => {
    const client = await fresh('client', [], { core: cores?.client })
    const contestants: Contestant[] = []
    const held: Array<{ readonly server: Child, readonly count: number }> = []
    const add = async (name: string, count: number) => {
      const place = { core: cores?.server, node: ['--expose-gc'] }
      const server = await fresh('server', [name, IPv4.host], place)
      const target = { ...IPv4, port: await server.ask<number>('port') }
      // Separate processes, because the limit of open files is per process.
      const holder = await fresh('client', [], { core: cores?.client })
      await holder.ask('idle', { ...target, count })
      // A full collection of that many objects takes as long as all requests of a session. Collect now, so that it
      // does not happen in a random session.
      await server.ask('memory')
      held.push({ server, count })
      contestants.push({ name: `${name}, ${count}`, server, client, target })
    }
    // In random order, so that nobody is always first or last.
    const all = names.flatMap((name) => [FEW, MANY].map((count) => ({ name, count })))
    for (const { name, count } of shuffled(all)) await add(name, count)
    const costs = await measureCosts(contestants, work)
    // Node.js closes connections that send nothing for about a minute: the session took too long.
    for (const { server, count } of held) {
      const left = await server.ask<number>('connections')
      if (left < count) throw new Error(`${left} of ${count} connections are still open: this machine is too busy`)
    }
    return costs
  })
}
