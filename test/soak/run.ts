import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { release } from 'node:os'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { type Child, start } from '../../bench/child'
import { IPv4 } from '../../bench/network'
import { type Lab, openLab } from '../lab/lab'
import { apps, type Holdings, type Place, places, type Round } from './apps'
import { Disturbance, type Disturbances } from './disturb'
import { Expectations } from './expect'
import { type Counts, Load } from './load'
import { createRandom } from './random'

// npm run soak [-- --connections N] [--seed N] [--results FILE] [--resume FILE [--minutes N]]
// Ends after the round of the first wrong answer. With --resume it goes on from FILE, if that is there, and keeps there how
// far it is, at each checkpoint; with --minutes, or on SIGTERM, it stops after a round, to be resumed.

const RESULTS = join(dirname(require.resolve('fastify-real-ip/package.json')), 'test/soak/results.json')
/** From so many connections on, a run that passes is what the documentation tells of. */
const LONG = 1_000_000
const ROUND = 2000
// At first, so that what is broken shows at once.
const SHORT_ROUND = 250
const SHORT_ROUNDS = 8
const CHECKPOINTS = 20
const CHECKPOINT_MAX = 100_000
/** With fewer not even every kind of connection can be counted on. */
const LEAST = 1000
// Of the checkpoints: code has been compiled and caches have been filled by then.
const WARM = 0.5
// With fewer connections neither that nor all that is random can be counted on.
const SHORT = 50_000
/** How much the heaps may grow, in bytes: their noise, and for each connection less than a slot of an array takes. */
const NOISE = 800_000
const LEFT_MAX = 2
// A BPF file system of its own, so that what is attached goes away with the process.
const MOUNTED = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', 'mount -t bpf bpf /sys/fs/bpf && exec "$@"', 'sh']

type Checkpoint = Holdings & { readonly connections: number }
type Slopes = Readonly<Record<'heap' | 'external' | 'rss', number>>

/** What server processes saw from their start to their end. */
interface Stretch {
  seconds: number
  readonly counts: Counts
  readonly disturbances: Disturbances
  /** the apps that found 1348 again after a time without it */
  foundAgain: readonly number[]
  readonly before: Holdings
  readonly checkpoints: Checkpoint[]
  /** undefined: it was broken off after the last checkpoint */
  after?: Holdings
}

/** What can be resumed. */
interface State {
  readonly seed: number
  readonly stretches: readonly Stretch[]
}

interface Order {
  readonly connections: number
  readonly seed: number | undefined
  readonly results: string | undefined
  readonly resume: string | undefined
  readonly minutes: number
}

function parse (): Order {
  const { values } = parseArgs({
    options: {
      connections: { type: 'string', default: '50000' },
      seed: { type: 'string' },
      results: { type: 'string' },
      resume: { type: 'string' },
      minutes: { type: 'string' }
    }
  })
  const connections = Number(values.connections)
  const seed = values.seed === undefined ? undefined : Number(values.seed)
  const minutes = Number(values.minutes ?? Infinity)
  // The clients' counter has 24 bits.
  const isGood = connections >= LEAST && connections < 2 ** 24 && Number.isInteger(connections) &&
    (seed === undefined || Number.isInteger(seed)) && minutes > 0 && (values.minutes === undefined || values.resume !== undefined)
  if (!isGood) {
    throw new Error(`usage: npm run soak -- [--connections N, ${LEAST} or more] [--seed N] [--results FILE] [--resume FILE [--minutes N]]`)
  }
  return { connections, seed, minutes, results: values.results, resume: values.resume }
}

/** The sum of all numbers, wherever they are; lists are put together, and of anything else there is the last. */
function sum<Value> (values: readonly Value[]): Value {
  const last = values.at(-1) as any
  if (typeof last === 'number') return values.reduce((sum, value) => sum + (value as number), 0) as Value
  if (Array.isArray(last)) return values.flat() as Value
  if (typeof last === 'boolean') return values.some((value) => value) as Value
  if (typeof last !== 'object') return last
  const names = new Set(values.flatMap((value) => Object.keys(value as object)))
  const all = (name: string) => values.map((value) => (value as any)[name]).filter((value) => value !== undefined)
  return Object.fromEntries([...names].map((name) => [name, sum(all(name))])) as Value
}

async function startServers (lab: Lab, children: Child[]): Promise<Readonly<Record<Place, Child>>> {
  const attachedCgroup = join(lab.serverCgroup, '../attached')
  mkdirSync(attachedCgroup)
  const startIn = async (place: Place, script: string, cgroup: string, before: string[] = []) => {
    const child = await start(`../test/soak/${script}`, [place, cgroup], { cgroup, node: ['--expose-gc'], before })
    children.push(child)
    return child
  }
  return {
    process: await startIn('process', 'server', lab.serverCgroup),
    worker: await startIn('worker', 'primary', lab.serverCgroup),
    attached: await startIn('attached', 'server', attachedCgroup, MOUNTED)
  }
}

/** Until there are `total` connections, or `isLate`. Goes on from those that were made `before`. */
async function run (
  lab: Lab, children: Child[], { seed, stretches }: State, total: number, isLate: () => boolean, progress: (stretch: Stretch, isCheckpoint: boolean) => void
): Promise<Stretch> {
  const made = connectionsOf(stretches)
  const began = performance.now()
  const servers = await startServers(lab, children)
  const askAll = <Answer = void>(question: string) => Promise.all(places.map((place) => servers[place].ask<Answer>(question)))
  const hold = async () => sum(await askAll<Holdings>('hold'))
  const client = await lab.client(null)
  client.enter()
  const before = await hold()
  const ports = new Map((await askAll<Array<[number, number]>>('start')).flat())
  const sources = ['127.0.0.1', '127.0.0.2', '127.0.0.3', '127.0.0.4', '127.0.0.5', '127.0.0.6', '::1', ...IPv4.from === undefined ? [] : [IPv4.from]]
  const expectations = { process: new Expectations(new Set()), worker: new Expectations(new Set()), attached: new Expectations(new Set()) }
  const load = new Load(seed, made, client, expectations, ports, sources)
  const disturbance = new Disturbance(createRandom(seed, -1 - stretches.length), lab, servers, expectations, sources)
  const { counts } = load
  const stretch: Stretch = { seconds: 0, counts, disturbances: disturbance.counts, foundAgain: [], before, checkpoints: [] }
  const between = Math.min(total / CHECKPOINTS, CHECKPOINT_MAX)
  const endRound = async () => { load.checkRound(await askAll<Round>('endRound')) }
  const note = () => {
    stretch.seconds = (performance.now() - began) / 1000
    stretch.foundAgain = places.flatMap((place) => [...expectations[place].foundAgain]).map((app) => apps.indexOf(app))
  }

  try {
    let isOver = false
    for (let round = 0; !isOver && made + counts.connections < total && counts.wrong + counts.errors === 0; round++) {
      const checkpoint = Math.min(Math.round((stretch.checkpoints.length + 1) * between), total - made)
      const size = Math.min(round < SHORT_ROUNDS ? SHORT_ROUND : ROUND, checkpoint - counts.connections)
      await load.run(size, () => disturbance.at(counts.connections))
      await disturbance.settle()
      await endRound()
      note()
      isOver = isLate()
      const isCheckpoint = isOver || counts.connections >= checkpoint
      if (isCheckpoint) {
        await load.drop()
        // What was kept of requests is told in the round after, and nothing is kept then.
        for (let i = 0; i < 2; i++) await endRound()
        stretch.checkpoints.push({ ...await hold(), connections: made + counts.connections })
      }
      progress(stretch, isCheckpoint)
    }
    await load.drop()
    await askAll('close')
    stretch.after = await hold()
  } catch (error) {
    load.failed(error)
  }
  note()
  return stretch
}

const connectionsOf = (stretches: readonly Stretch[]): number => stretches.reduce((sum, { counts }) => sum + counts.connections, 0)

function warmOf ({ checkpoints }: Stretch): Checkpoint[] {
  return checkpoints.slice(Math.floor(checkpoints.length * WARM))
}

/** Bytes for each further connection: the slope of the line with the least squares. NaN: it needs more checkpoints. */
function slopesOf (stretch: Stretch): Slopes {
  const warm = warmOf(stretch)
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length
  const x = mean(warm.map(({ connections }) => connections))
  const along = warm.map(({ connections }) => connections - x)
  const slope = (of: keyof Slopes) => {
    const y = mean(warm.map((one) => one[of]))
    return mean(warm.map((one, i) => along[i]! * (one[of] - y))) / mean(along.map((distance) => distance ** 2))
  }
  return { heap: slope('heap'), external: slope('external'), rss: slope('rss') }
}

type Check = readonly [good: boolean, failure: string]

function checkStretch (stretch: Stretch): Check[] {
  const { counts, before, checkpoints, after } = stretch
  const [first] = checkpoints
  const last = checkpoints.at(-1)
  if (counts.wrong + counts.errors > 0 || first === undefined || last === undefined) return []
  const warm = warmOf(stretch)
  const { heap } = slopesOf(stretch)
  const heapMax = LEFT_MAX + NOISE / (last.connections - warm[0]!.connections)
  // Each server listens, and may have a socket for sock_diag(7).
  const fds = before.fds + 2 * apps.length
  return [
    // What a worker holds while it looks for the transport peer is counted and never handed over where the client goes.
    [last.accepted <= last.counted - last.rejected,
      `the plugin counted ${last.counted} connections and reset ${last.rejected}, ${last.accepted} were handed over`],
    [counts.answers.gone + last.counted - last.accepted === counts.answers.untold,
      `${counts.answers.untold} connections are missing, ${counts.answers.gone} were gone, ${last.counted - last.accepted} were not handed over`],
    [counts.connections < SHORT || warm.length < 2 || heap <= heapMax, `each connection left ${heap.toFixed(1)} bytes of heap behind, more than ${heapMax.toFixed(1)}`],
    [last.fds <= fds, `${last.fds} descriptors with no connection open, not ${fds}`],
    [last.listeners === first.listeners, `${last.listeners} listeners, ${first.listeners} at first`],
    ...after === undefined
      ? []
      : [
          [after.fds === before.fds, `${after.fds} descriptors after close(), ${before.fds} before the servers`],
          [after.listeners === before.listeners, `${after.listeners} listeners after close(), ${before.listeners} before the servers`],
          [!after.subscribed, 'a channel is subscribed to after close()']
        ] as const
  ]
}

function failuresOf (stretches: readonly Stretch[]): string[] {
  const counts = sum(stretches.map(({ counts }) => counts))
  const foundAgain = new Set(stretches.flatMap(({ foundAgain }) => foundAgain)).size
  const isGood = counts.wrong + counts.errors === 0
  const checks: Check[] = [
    [counts.wrong === 0, `${counts.wrong} wrong answers, the first among ${counts.firstWrong} connections`],
    [counts.errors === 0, `${counts.errors} errors`]
  ]
  if (isGood && counts.connections >= LEAST) {
    checks.push(
      [counts.headers.v1 > 0 && counts.headers.v2 > 0 && counts.headers['in pieces'] > 0, 'no PROXY headers were sent'],
      [counts.answers.forwarded > 0, 'no answer was from X-Forwarded-For'],
      [counts.answers.reused > 0, 'no descriptor was used again'])
  }
  checks.push(
    [!isGood || counts.connections < SHORT || foundAgain === apps.length, `${foundAgain} of ${apps.length} servers found 1348 again after a time without it`],
    ...stretches.flatMap(checkStretch))
  return checks.flatMap(([good, failure]) => good ? [] : [failure])
}

function createProgress (total: number): (connections: number, answers: Counts['answers']) => void {
  const started = performance.now()
  let told = 0
  return (connections, answers) => {
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
  /** in bytes, for each further connection, of all server processes together; of the stretch where the heap grew most */
  readonly slopes: Slopes
  readonly counts: Counts
  readonly disturbances: Disturbances
  readonly before: Holdings
  /** with no connection open */
  readonly checkpoints: readonly Checkpoint[]
  readonly after?: Holdings | undefined
  /** from a start of the server processes to their end */
  readonly stretches?: ReadonlyArray<{ readonly connections: number, readonly seconds: number, readonly slopes: Slopes }>
}

function summarize (seed: number, stretches: readonly Stretch[], failures: readonly string[]): Results {
  const each = stretches.map((stretch) => ({ connections: stretch.counts.connections, seconds: stretch.seconds, slopes: slopesOf(stretch) }))
  const steepest = each.map(({ slopes }) => slopes).reduce((a, b) => b.heap > a.heap || Number.isNaN(a.heap) ? b : a)
  return {
    passed: failures.length === 0,
    failures,
    seed,
    seconds: each.reduce((sum, { seconds }) => sum + seconds, 0),
    node: process.version,
    kernel: /^\d+\.\d+(\.\d+)?/.exec(release())?.[0],
    slopes: steepest,
    counts: sum(stretches.map(({ counts }) => counts)),
    disturbances: sum(stretches.map(({ disturbances }) => disturbances)),
    before: stretches[0]!.before,
    checkpoints: stretches.flatMap(({ checkpoints }) => checkpoints),
    after: stretches.at(-1)!.after,
    stretches: each
  }
}

const perConnection = (bytes: number): string => Number.isNaN(bytes) ? 'not known' : `${bytes.toFixed(2)} B`

function write (file: string, what: object): void {
  writeFileSync(`${file}.new`, JSON.stringify(what, undefined, 2) + '\n')
  renameSync(`${file}.new`, file)
}

async function makeStretch ({ connections: total, minutes, resume }: Order, state: State): Promise<Stretch> {
  const progress = createProgress(total)
  const made = connectionsOf(state.stretches)
  const keep = (stretch: Stretch) => {
    if (resume !== undefined) write(resume, { ...state, stretches: [...state.stretches, stretch] })
  }
  let isLate = false
  const stop = () => { isLate = true }
  const timer = minutes === Infinity ? undefined : setTimeout(stop, minutes * 60_000)
  if (resume !== undefined) process.once('SIGTERM', stop)
  const lab = await openLab()
  const children: Child[] = []
  try {
    const stretch = await run(lab, children, state, total, () => isLate, (stretch, isCheckpoint) => {
      progress(made + stretch.counts.connections, stretch.counts.answers)
      if (isCheckpoint) keep(stretch)
    })
    keep(stretch)
    return stretch
  } finally {
    clearTimeout(timer)
    await Promise.all(children.map((child) => child.stop()))
    await lab.close()
    if (process.stdout.isTTY) process.stdout.write('\r\x1b[K')
  }
}

async function main (): Promise<void> {
  const order = parse()
  const { connections: total, resume } = order
  const kept: State | undefined = resume !== undefined && existsSync(resume) ? JSON.parse(readFileSync(resume, 'utf8')) : undefined
  const { seed, stretches: before } = kept ?? { seed: order.seed ?? Date.now() % 2 ** 31, stretches: [] }
  console.log(`seed ${seed}${kept === undefined ? '' : `, ${connectionsOf(before)} connections were made before`}`)
  const hasFailed = before.some(({ counts }) => counts.wrong + counts.errors > 0)
  const isDue = connectionsOf(before) < total && !hasFailed
  const stretches = isDue ? [...before, await makeStretch(order, { seed, stretches: before })] : before

  const failures = failuresOf(stretches)
  const results = summarize(seed, stretches, failures)
  const { counts, seconds, slopes } = results
  const { answers } = counts
  const isComplete = counts.connections >= total
  if (!isComplete && resume === undefined && failures.length === 0) failures.push(`${counts.connections} of ${total} connections were made`)
  const file = order.results ?? (failures.length === 0 && isComplete && total >= LONG ? RESULTS : undefined)
  if (file !== undefined) write(file, results)

  console.log(`soak: ${counts.connections} connections in ${stretches.length === 1 ? 'one stretch' : `${stretches.length} stretches`}, ` +
    `${(counts.connections / seconds).toFixed(0)} a second; ${answers.exact + answers.window} answers right, ` +
    `${answers.window} of them in the window of a switch; ${counts.wrong} wrong`)
  console.log(`${answers.reused} answers after the descriptor was used again; heap ${perConnection(slopes.heap)}, RSS ${perConnection(slopes.rss)} a connection`)
  for (const sample of counts.samples) console.log(JSON.stringify(sample))
  for (const failure of failures) console.log(`FAILED: ${failure}`)
  if (failures.length === 0 && !isComplete) console.log(`stopped: the same command goes on to ${total} connections`)
  process.exitCode = failures.length === 0 ? 0 : 1
}

main().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
