import { writeFileSync } from 'node:fs'
import { release } from 'node:os'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { type Child, start } from '../../bench/child'
import { IPv4 } from '../../bench/network'
import { type Lab, openLab } from '../lab/lab'
import { apps, type Holdings, type Round } from './apps'
import { Disturbance, type Disturbances } from './disturb'
import { Expectations } from './expect'
import { type Counts, Load } from './load'

// npm run soak [-- --connections N] [--seed N] [--results FILE]
// Ends after the round of the first wrong answer.

const RESULTS = join(dirname(require.resolve('fastify-real-ip/package.json')), 'test/soak/results.json')
/** From so many connections on, a run that passes is what the documentation tells of. */
const LONG = 1_000_000
const ROUND = 2000
// At first, so that what is broken shows at once.
const SHORT_ROUND = 250
const SHORT_ROUNDS = 8
const CHECKPOINTS = 20
// Of the checkpoints: code has been compiled and caches have been filled by then.
const WARM = 0.5
// With fewer connections neither that nor all that is random can be counted on.
const SHORT = 50_000
/** How much the heap may grow, in bytes: its noise, and for each connection less than a slot of an array takes. */
const NOISE = 400_000
const LEFT_MAX = 2

type Checkpoint = Holdings & { readonly connections: number }
type Run = typeof run extends (...args: any) => Promise<infer Result> ? Result : never

function parse (): { connections: number, seed: number, results: string | undefined } {
  const { values } = parseArgs({ options: { connections: { type: 'string', default: '50000' }, seed: { type: 'string' }, results: { type: 'string' } } })
  const connections = Number(values.connections)
  const seed = Number(values.seed ?? Date.now() % 2 ** 31)
  // The clients' counter has 24 bits.
  if (!(connections >= 1000 && connections < 2 ** 24) || !Number.isInteger(connections) || !Number.isInteger(seed)) {
    throw new Error('usage: npm run soak -- [--connections N, 1000 or more] [--seed N] [--results FILE]')
  }
  return { connections, seed, results: values.results }
}

async function run (lab: Lab, children: Child[], seed: number, total: number, progress: Progress) {
  const server = await start('../test/soak/server', [], { cgroup: lab.serverCgroup, node: ['--expose-gc'] })
  children.push(server)
  const client = await lab.client(null)
  client.enter()
  const before = await server.ask<Holdings>('hold')
  const ports = await server.ask<number[]>('start')
  const sources = ['127.0.0.1', '127.0.0.2', '127.0.0.3', '127.0.0.4', '127.0.0.5', '127.0.0.6', '::1', ...IPv4.from === undefined ? [] : [IPv4.from]]
  const expectations = new Expectations(new Set())
  const load = new Load(seed, client, expectations, ports, sources)
  const disturbance = new Disturbance(seed, lab, server, expectations, sources)
  const checkpoints: Checkpoint[] = []
  const { counts } = load

  for (let round = 0; counts.connections < total && counts.wrong + counts.errors === 0; round++) {
    const checkpoint = Math.round(total * (checkpoints.length + 1) / CHECKPOINTS)
    const size = Math.min(round < SHORT_ROUNDS ? SHORT_ROUND : ROUND, checkpoint - counts.connections)
    await load.run(size, () => disturbance.at(counts.connections))
    await disturbance.settle()
    load.checkRound(await server.ask<Round>('endRound'))
    progress(counts)
    if (counts.connections < checkpoint) continue
    await load.drop()
    // What was kept of requests is told in the round after, and nothing is kept then.
    for (let i = 0; i < 2; i++) load.checkRound(await server.ask<Round>('endRound'))
    checkpoints.push({ connections: counts.connections, ...await server.ask<Holdings>('hold') })
  }
  await load.drop()
  await server.ask('close')
  return { counts, disturbances: disturbance.counts, foundAgain: expectations.foundAgain.size, before, checkpoints, after: await server.ask<Holdings>('hold') }
}

/** Bytes for each further connection: the slope of the line with the least squares. */
function slope (checkpoints: readonly Checkpoint[], of: 'heap' | 'external' | 'rss'): number {
  const warm = checkpoints.slice(Math.floor(checkpoints.length * WARM))
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
  const x = mean(warm.map(({ connections }) => connections))
  const y = mean(warm.map((one) => one[of]))
  const along = warm.map(({ connections }) => connections - x)
  return mean(warm.map((one, i) => along[i]! * (one[of] - y))) / mean(along.map((distance) => distance ** 2))
}

function failuresOf ({ counts, foundAgain, before, checkpoints, after }: Run, total: number): string[] {
  const last = checkpoints.at(-1)
  const checks: Array<[good: boolean, failure: string]> = [
    [counts.wrong === 0, `${counts.wrong} wrong answers, the first among ${counts.firstWrong} connections`],
    [counts.errors === 0, `${counts.errors} errors`],
    [counts.connections === total, `${counts.connections} of ${total} connections were made`],
    [after.accepted === after.counted - after.rejected,
      `the plugin counted ${after.counted} connections and reset ${after.rejected}, ${after.accepted} were handed over`],
    // Whoever leaves before his header is complete is reset.
    [counts.answers.gone + after.rejected === counts.answers.untold,
      `${counts.answers.untold} connections are missing, ${counts.answers.gone} were gone, ${after.rejected} reset`],
    [counts.headers.v1 > 0 && counts.headers.v2 > 0 && counts.headers['in pieces'] > 0, 'no PROXY headers were sent'],
    [counts.answers.reused > 0, 'no descriptor was used again']
  ]
  if (last !== undefined && counts.wrong + counts.errors === 0) {
    const left = slope(checkpoints, 'heap')
    const leftMax = LEFT_MAX + NOISE / (total * (1 - WARM))
    // Each server listens, and may have a socket for sock_diag(7).
    const fds = before.fds + 2 * apps.length
    checks.push(
      [total < SHORT || foundAgain === apps.length, `${foundAgain} of ${apps.length} servers found 1348 again after a time without it`],
      [total < SHORT || left <= leftMax, `each connection left ${left.toFixed(1)} bytes of heap behind, more than ${leftMax.toFixed(1)}`],
      [last.fds <= fds, `${last.fds} descriptors with no connection open, not ${fds}`],
      [after.fds === before.fds, `${after.fds} descriptors after close(), ${before.fds} before the servers`],
      [last.listeners === checkpoints[0]!.listeners, `${last.listeners} listeners, ${checkpoints[0]!.listeners} at first`],
      [after.listeners === before.listeners, `${after.listeners} listeners after close(), ${before.listeners} before the servers`],
      [!after.subscribed, 'a channel is subscribed to after close()'])
  }
  return checks.flatMap(([good, failure]) => good ? [] : [failure])
}

type Progress = (counts: Counts) => void

function createProgress (total: number): Progress {
  const started = performance.now()
  let told = 0
  return ({ connections, answers }) => {
    const seconds = (performance.now() - started) / 1000
    const line = `${connections} connections, ${answers.exact + answers.window} answers checked, ${seconds.toFixed(0)} s`
    if (process.stdout.isTTY) {
      process.stdout.write(`\r\x1b[K${line}`)
    } else if (connections >= total * (told + 1) / 5) {
      told = Math.floor(connections / total * 5)
      console.log(line)
    }
  }
}

/** What goes into the file. */
export interface Results {
  readonly passed: boolean
  readonly failures: readonly string[]
  readonly seed: number
  readonly seconds: number
  readonly node: string
  readonly kernel: string | undefined
  readonly counts: Counts
  readonly disturbances: Disturbances
  /** in bytes, for each further connection */
  readonly slopes: { readonly heap: number, readonly external: number, readonly rss: number }
  readonly before: Holdings
  /** with no connection open */
  readonly checkpoints: readonly Checkpoint[]
  readonly after: Holdings
}

async function main (): Promise<void> {
  const { connections: total, seed, results } = parse()
  console.log(`seed ${seed}`)
  const started = performance.now()
  const lab = await openLab()
  const children: Child[] = []
  let done: Run
  try {
    done = await run(lab, children, seed, total, createProgress(total))
  } finally {
    await Promise.all(children.map((child) => child.stop()))
    await lab.close()
  }
  if (process.stdout.isTTY) process.stdout.write('\r\x1b[K')
  const seconds = (performance.now() - started) / 1000
  const failures = failuresOf(done, total)
  const { checkpoints, counts } = done
  const { answers } = counts
  const checked = answers.exact + answers.window
  const slopes = { heap: slope(checkpoints, 'heap'), external: slope(checkpoints, 'external'), rss: slope(checkpoints, 'rss') }
  const file = results ?? (failures.length === 0 && total >= LONG ? RESULTS : undefined)
  if (file !== undefined) {
    const all: Results = {
      passed: failures.length === 0, failures, seed, seconds, node: process.version, kernel: /^\d+\.\d+(\.\d+)?/.exec(release())?.[0], slopes, ...done
    }
    writeFileSync(file, JSON.stringify(all, undefined, 2) + '\n')
  }

  console.log(`soak: ${counts.connections} connections, ${(counts.connections / seconds).toFixed(0)} a second; ${checked} answers right, ` +
    `${answers.window} of them in the window of a switch; ${counts.wrong} wrong`)
  console.log(`${answers.reused} answers after the descriptor was used again; heap ${slopes.heap.toFixed(2)} B, RSS ${slopes.rss.toFixed(2)} B a connection`)
  for (const sample of counts.samples) console.log(JSON.stringify(sample))
  for (const failure of failures) console.log(`FAILED: ${failure}`)
  process.exitCode = failures.length === 0 ? 0 : 1
}

main().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
