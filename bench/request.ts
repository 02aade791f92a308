import { withChildren } from './child'
import { withVtoa, type Kernel } from './kernel'
import { IPv4 } from './network'
import type { Row } from './report'
import type { Cores, Figure, Run } from './figure'
import type { Protocol } from './server'
import { EVEN_TERMS, measureCosts, type Contestant, type Costs } from './slices'
import { estimate, means, median, ratios, shuffled } from './statistics'
import { otherResolvers, plugins, proxied, resolvers, sources, withModule } from './variants'

interface Workload {
  readonly name: string
  /** The protocol of the requests */
  readonly title: string
  readonly protocol: Protocol
  readonly question: string
  readonly warmUp: number
  readonly slice: number
  readonly rounds: number
  /** Processes differ from each other at random: few pairs where the target applies to the end of the interval. */
  readonly pairsInSession: number
  readonly names: readonly string[]
  /** Requested in addition, in a kernel of their own, and compared to each other */
  readonly withModule?: readonly string[]
  /** Targets for the upper end of the interval of ratios to plain, by variant */
  readonly targets?: Readonly<Record<string, number>>
  /** The plugin is to cost less than these */
  readonly dearer?: readonly string[]
}

const names = Object.keys(resolvers)
const [PLUGIN, WITH_LIST] = plugins

const newConnections = { protocol: 'http', question: 'connections', warmUp: 10_000, slice: 60, rounds: 5 } as const

// A slice keeps a server busy for about 10 ms. Warm-up lasts until times no longer improve; plain Fastify needs longer
// than most others.
const workloads: readonly Workload[] = [
  {
    name: 'keep-alive',
    title: 'a request on a kept connection',
    protocol: 'http',
    question: 'requests',
    warmUp: 20_000,
    slice: 250,
    rounds: 6,
    pairsInSession: 2,
    names,
    targets: { [PLUGIN]: 1.015, [WITH_LIST]: 1.015 },
    dearer: otherResolvers
  },
  {
    ...newConnections,
    name: 'one-shot',
    title: 'one connection per request',
    pairsInSession: 2,
    names,
    targets: { [PLUGIN]: 1.05 },
    dearer: ['request.ip, trustProxy: true']
  },
  {
    ...newConnections,
    name: 'one-shot-sources',
    title: 'one connection per request, by source',
    pairsInSession: 20,
    names: ['plain', 'control', ...Object.keys(sources)],
    withModule: Object.keys(withModule)
  },
  {
    name: 'tls',
    title: 'a TLS handshake per request',
    protocol: 'https',
    question: 'handshakes',
    warmUp: 800,
    slice: 15,
    rounds: 2,
    pairsInSession: 20,
    names
  },
  {
    name: 'http2',
    title: 'HTTP/2 with 100 streams',
    protocol: 'h2c',
    question: 'streams',
    warmUp: 18_000,
    slice: 200,
    rounds: 3,
    pairsInSession: 2,
    names
  },
  {
    name: 'proxied',
    title: 'a request on a kept connection of an HTTP proxy',
    protocol: 'http',
    question: 'requests',
    warmUp: 20_000,
    slice: 250,
    rounds: 6,
    pairsInSession: 2,
    names: Object.keys(proxied),
    targets: { 'fastify-real-ip, forwarded': 1.1 },
    dearer: ['request.ip, trustProxy: list']
  }
]

/** The costs of one workload in each process: side by side on the unmodified kernel, and with the module. */
interface Session {
  readonly bare: Costs
  readonly withModule: Costs | undefined
}

/** Server CPU per request ÷ plain Fastify, one figure per workload. */
export const requests: readonly Figure[] = workloads.map((workload) => ({
  name: workload.name,
  title: `server CPU per request ÷ plain Fastify: ${workload.title}`,
  async measure (run) {
    if (workload.withModule === undefined) return await measure(workload, run, 'not asked')
    const measured = await withVtoa(IPv4.derive, (kernel) => measure(workload, run, kernel))
    return typeof measured === 'string' ? await measure(workload, run, measured) : measured
  }
}))

/** `module`: the kernel in which vtoa answers, or why there is none. */
async function measure (workload: Workload, { pairs, cores, progress }: Run, module: Kernel | string): Promise<Row[]> {
  const { names, pairsInSession, dearer = [], withModule } = workload
  const sessions: Session[] = []
  for (let done = 0; done < pairs; done += pairsInSession) {
    progress(`${done} of ${pairs} pairs`)
    sessions.push(await runSession(workload, Math.min(pairsInSession, pairs - done), module, cores))
  }
  const bare = sessions.map((session) => session.bare)
  const rows = [...toRows(workload, names, bare), ...dearer.flatMap((other) => toComparison(workload, bare, other))]
  if (withModule === undefined) return rows
  const answering = 'vtoa answering: '
  if (typeof module === 'string') {
    return [...rows, ...judged(withModule).map((name) => ({ name: answering + name, notShown: module }))]
  }
  const answered = toRows({}, withModule, sessions.map((session) => session.withModule as Costs))
  return [...rows, ...answered.map((row) => ({ ...row, name: answering + row.name }))]
}

// Plain Fastify runs twice: the ratio of both is the control, and the others are compared to their mean.
const BOTH = 'both'
const withBoth = (costs: Costs): Costs =>
  ({ ...costs, [BOTH]: means(of('plain', costs), of('control', costs)) })

const judged = (names: readonly string[]) => names.filter((name) => name !== 'plain' && name !== 'control')
const of = (name: string, costs: Costs) => costs[name] as number[]
const over = (sessions: readonly Costs[], name: string, under: string) =>
  estimate(sessions.map((costs) => ratios(of(name, costs), of(under, costs))))
const microseconds = (sessions: readonly Costs[], name: string) => median(sessions.flatMap((costs) => of(name, costs)))

function toRows ({ targets }: Pick<Workload, 'targets'>, names: readonly string[], sessions: readonly Costs[]): Row[] {
  const control = over(sessions, 'control', 'plain')
  return judged(names).map((name) => ({
    name,
    value: over(sessions, name, BOTH),
    control,
    samplesNeeded: 100,
    ...(targets?.[name] !== undefined && { target: targets[name], judgedBy: 'upper end' }),
    absolute: { microseconds: microseconds(sessions, name), plainMicroseconds: microseconds(sessions, BOTH) }
  }))
}

function toComparison ({ targets }: Workload, sessions: readonly Costs[], other: string): Row[] {
  const control = over(sessions, 'control', 'plain')
  return Object.keys(targets ?? {}).map((name) => ({
    name: `${name} ÷ ${other}`,
    value: over(sessions, name, other),
    control,
    samplesNeeded: 100,
    target: 1,
    judgedBy: 'upper end'
  }))
}

function runSession (
  workload: Workload, pairs: number, module: Kernel | string, cores: Cores | undefined
): Promise<Session> {
  const { protocol, names } = workload
  const place = { core: cores?.server, node: EVEN_TERMS }
  const measure = async (contestants: Contestant[]) => withBoth(await measureCosts(contestants, workload, pairs))
  return withChildren(async (fresh) => {
    const contestantsIn = async (names: readonly string[], kernel: Kernel): Promise<Contestant[]> => {
      const client = await fresh('client', [], { core: cores?.client, cgroup: kernel.clientCgroup })
      const contestants: Contestant[] = []
      for (const name of shuffled(names)) {
        const server = await fresh('server', [name, IPv4.host, protocol], { ...place, cgroup: kernel.serverCgroup })
        contestants.push({ name, server, client, target: { ...IPv4, port: await server.ask<number>('port') } })
      }
      return contestants
    }
    const bare = await measure(await contestantsIn(names, {}))
    if (workload.withModule === undefined || typeof module === 'string') return { bare, withModule: undefined }
    return { bare, withModule: await measure(await contestantsIn(workload.withModule, module)) }
  })
}
