import { setTimeout as sleep } from 'node:timers/promises'
import { withChildren } from './child'
import { withVtoa, type Kernel } from './kernel'
import { IPv4, type Family } from './network'
import type { Row } from './report'
import type { Cores, Figure, Run } from './figure'
import type { Protocol } from './server'
import { measureCosts, type Contestant, type Costs } from './slices'
import { estimate, median, quantile, shuffled } from './statistics'
import { loopback, plugins, proxied, sources, withModule } from './variants'

interface Workload {
  readonly name: string
  /** The protocol of the requests */
  readonly title: string
  readonly protocol: Protocol
  readonly question: string
  readonly warmUp: number
  readonly slice: number
  readonly rounds: number
  /** Each in fresh processes, which differ from each other at random */
  readonly sessions: number
  readonly names: readonly string[]
  /** Where clients connect from */
  readonly network?: Family
  /** Seconds that servers idle before their first request */
  readonly idle?: number
  /** Requested in addition, in a kernel of their own, and compared to each other */
  readonly withModule?: readonly string[]
  /** Upper limits of ratios to plain, by variant */
  readonly targets?: Readonly<Record<string, number>>
  readonly judgedBy?: Row['judgedBy']
  /** The plugin is to cost less than these */
  readonly dearer?: readonly string[]
}

const [PLUGIN, WITH_LIST] = plugins
const TRUE = 'request.ip, trustProxy: true'
const LIST = 'request.ip, trustProxy: list'
const HOOK = 'plain, with an onRequest hook that does nothing'
const few = ['plain', 'control', PLUGIN, WITH_LIST, LIST]
const many = [...few, TRUE, 'fastify-ip']

// A slice keeps a server busy for about 10 ms. Warm-up lasts until V8 has compiled all of the code: its compiler counts
// as CPU of the process, and after 6,000 connections it still took some 7 µs of each where there is most code.
const newConnections = { protocol: 'http', question: 'connections', warmUp: 25_000, slice: 60, rounds: 8 } as const
const requests = { protocol: 'http', question: 'requests', warmUp: 40_000, slice: 250, rounds: 8 } as const

export const oneShot = figure({
  ...newConnections,
  name: 'one-shot',
  title: 'one connection per request',
  sessions: 24,
  names: many,
  targets: { [PLUGIN]: 1.05, [WITH_LIST]: 1.05 },
  dearer: [TRUE]
})

export const oneShotLoopback = figure({
  ...newConnections,
  name: 'one-shot-loopback',
  title: 'one connection per request, from a loopback address',
  sessions: 20,
  names: Object.keys(loopback),
  network: { ...IPv4, from: undefined },
  targets: { [PLUGIN]: 1.04 },
  judgedBy: 'median'
})

export const keepAlive = figure({
  ...requests,
  name: 'keep-alive',
  title: 'a request on a kept connection',
  sessions: 24,
  names: [...many, HOOK],
  targets: { [PLUGIN]: 1.015, [WITH_LIST]: 1.015 },
  dearer: [TRUE, LIST]
})

export const idleStart = figure({
  ...requests,
  name: 'idle-start',
  title: 'a request on a kept connection, of a server that idled for 10 s before its first',
  sessions: 20,
  names: few,
  idle: 10
})

export const behindProxy = figure({
  ...requests,
  name: 'proxied',
  title: 'a request on a kept connection of an HTTP proxy',
  sessions: 25,
  names: Object.keys(proxied),
  targets: { 'fastify-real-ip, forwarded': 1.1 },
  dearer: [LIST]
})

export const tls = figure({
  name: 'tls',
  title: 'a TLS handshake per request',
  protocol: 'https',
  question: 'handshakes',
  warmUp: 2500,
  slice: 30,
  rounds: 5,
  sessions: 15,
  names: few
})

export const http2 = figure({
  name: 'http2',
  title: 'HTTP/2 with 100 streams',
  protocol: 'h2c',
  question: 'streams',
  warmUp: 18_000,
  slice: 200,
  rounds: 8,
  sessions: 20,
  names: few
})

export const oneShotSources = figure({
  ...newConnections,
  name: 'one-shot-sources',
  title: 'one connection per request, by source',
  sessions: 8,
  names: ['plain', 'control', ...Object.keys(sources)],
  withModule: Object.keys(withModule)
})

/** The costs of one workload in each process: side by side on the unmodified kernel, and with the module. */
interface Session {
  readonly bare: Costs
  readonly withModule: Costs | undefined
}

/** Server CPU per request ÷ plain Fastify. */
function figure (workload: Workload): Figure {
  return {
    name: workload.name,
    title: `server CPU per request ÷ plain Fastify: ${workload.title}`,
    async measure (run) {
      if (workload.withModule === undefined) return await measure(workload, run, 'not asked')
      const measured = await withVtoa(IPv4.derive, (kernel) => measure(workload, run, kernel))
      return typeof measured === 'string' ? await measure(workload, run, measured) : measured
    }
  }
}

/** `module`: the kernel in which vtoa answers, or why there is none. */
async function measure (workload: Workload, run: Run, module: Kernel | string): Promise<Row[]> {
  const { names, dearer = [], withModule } = workload
  const { sessions: count = workload.sessions, cores, progress } = run
  const sessions: Session[] = []
  while (sessions.length < count) {
    progress(`${sessions.length} of ${count} sessions`)
    sessions.push(await runSession(workload, module, cores))
  }
  const bare = sessions.map((session) => session.bare)
  const rows = [...toRows(workload, names, bare), ...dearer.flatMap((other) => toComparison(workload, bare, other))]
  if (withModule === undefined) return rows
  const answering = 'vtoa answering: '
  if (typeof module === 'string') {
    return [...rows, ...judged(withModule).map((name) => ({ name: answering + name, notShown: module }))]
  }
  const costs = sessions.map((session) => session.withModule as Costs)
  const answered = toRows({ sessions: workload.sessions }, withModule, costs)
  return [...rows, ...answered.map((row) => ({ ...row, name: answering + row.name }))]
}

const judged = (names: readonly string[]) => names.filter((name) => name !== 'plain' && name !== 'control')
const of = (name: string, costs: Costs) => costs[name] as number
// Plain Fastify runs twice: the ratio of both is the control, and the others are compared to their mean.
const plain = (costs: Costs) => (of('plain', costs) + of('control', costs)) / 2
const ratios = (sessions: readonly Costs[], name: string, under: (costs: Costs) => number) =>
  sessions.map((costs) => of(name, costs) / under(costs))
const controls = (sessions: readonly Costs[]) => ratios(sessions, 'control', (costs) => of('plain', costs))

function toRows (
  { targets, judgedBy = 'upper end', sessions: samplesNeeded }:
  Pick<Workload, 'targets' | 'judgedBy' | 'sessions'>,
  names: readonly string[], sessions: readonly Costs[]
): Row[] {
  const control = estimate(controls(sessions))
  return judged(names).map((name) => ({
    name,
    value: estimate(ratios(sessions, name, plain)),
    control,
    samplesNeeded,
    ...(targets?.[name] !== undefined && { target: targets[name], judgedBy }),
    absolute: {
      microseconds: median(sessions.map((costs) => of(name, costs))),
      plainMicroseconds: median(sessions.map(plain)),
      ninthDecileOfRatios: quantile(ratios(sessions, name, plain), 0.9),
      ofControls: quantile(controls(sessions), 0.9)
    }
  }))
}

function toComparison (
  { targets, sessions: samplesNeeded }: Workload, sessions: readonly Costs[], other: string
): Row[] {
  const control = estimate(controls(sessions))
  return Object.keys(targets ?? {}).map((name) => ({
    name: `${name} ÷ ${other}`,
    value: estimate(ratios(sessions, name, (costs) => of(other, costs))),
    control,
    samplesNeeded,
    target: 1,
    judgedBy: 'upper end'
  }))
}

function runSession (workload: Workload, module: Kernel | string, cores: Cores | undefined): Promise<Session> {
  const { protocol, names, network = IPv4, idle = 0 } = workload
  return withChildren(async (fresh) => {
    const contestantsIn = async (names: readonly string[], kernel: Kernel): Promise<Contestant[]> => {
      const client = await fresh('client', [], { core: cores?.client, cgroup: kernel.clientCgroup })
      const contestants: Contestant[] = []
      for (const name of shuffled(names)) {
        const place = { core: cores?.server, cgroup: kernel.serverCgroup }
        const server = await fresh('server', [name, network.host, protocol], place)
        contestants.push({ name, server, client, target: { ...network, port: await server.ask<number>('port') } })
      }
      await sleep(idle * 1000)
      return contestants
    }
    const bare = await measureCosts(await contestantsIn(names, {}), workload)
    if (workload.withModule === undefined || typeof module === 'string') return { bare, withModule: undefined }
    return { bare, withModule: await measureCosts(await contestantsIn(workload.withModule, module), workload) }
  })
}
