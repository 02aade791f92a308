import { type ChildProcess, spawn } from 'node:child_process'
import { appendFileSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, relative } from 'node:path'
import { isKnown } from './reporter'
import type { Order, Outcome } from './warm'
import type * as api from '@stryker-mutator/api/test-runner' with { 'resolution-mode': 'import' }

// Stryker's own runners see what a test reaches in its own process alone. Here the children that a test starts count too.
// A mutant is tried in a process that has run tests before, which takes a fraction of the time of a new one. Now and then the
// test that has just failed runs there without a mutant: where it fails too, the process was not to be believed since the
// last look, and each of those mutants is tried again in new ones.

const recorder = join(__dirname, 'record.js')

/** The tests that answer for each file: all of them, for each survivor, would take hours. */
const testsOf = JSON.parse(readFileSync('test/mutation/tests.json', 'utf8')) as Record<string, string[]>
const compiled = (test: string) => `dist/test/${test}.test.js`

// Most of their time goes into processes of their own.
const cold = /^(kernel|package|cli\/(doctor|watch))/
// What its mutants leave subscribed stays in the process.
const unsettling = new Set(['lib/node/servers.ts'])
const labIsUp = (test: string, output: string) => test.startsWith('lab/') || output.includes('# Subtest: beside the stand-in')

// A mutant that a few thousand random cases do not find counts as a survivor.
const cases = process.env.FASTIFY_REAL_IP_CASES ?? '2000'

/** What each test took without a mutant; all workers read it. */
const times = 'dist/mutation-times.json'

/** Failures in a process until it is looked at. */
const BELIEVED = 8

interface Run {
  /** undefined: it passed. */
  readonly failure: string | undefined
  readonly timedOut: boolean
  readonly took: number
}

interface Started {
  readonly child: ChildProcess
  /** With all that it has started. */
  end (): void
}

function start (program: string, stdio: Array<'ignore' | 'pipe' | 'ipc'>, env: NodeJS.ProcessEnv): Started {
  // Fixtures of its own: a test that was ended leaves some, and others run beside it.
  const directory = mkdtempSync(join(tmpdir(), 'mutation-'))
  // A process group of its own, so that what a mutant leaves behind ends with it.
  const child = spawn(process.execPath, [program], {
    detached: true, stdio, env: { ...process.env, TAP_CWD: directory, FASTIFY_REAL_IP_CASES: cases, ...env }
  })
  const end = () => {
    try {
      process.kill(-(child.pid as number), 'SIGKILL')
    } catch {
      // None is left.
    }
  }
  child.once('exit', () => {
    end()
    rmSync(directory, { recursive: true, force: true })
  })
  return { child, end }
}

/** Runs a test in a process of its own. */
function run (test: string, limit: number, env: NodeJS.ProcessEnv): Promise<Run> {
  return new Promise((resolve, reject) => {
    const began = performance.now()
    const { child, end } = start(compiled(test), ['ignore', 'pipe', 'ignore'], env)
    let timedOut = false
    const timer = setTimeout(() => {
      timedOut = true
      end()
    }, limit)
    let output = ''
    let failure: string | undefined
    child.stdout?.setEncoding('utf8').on('data', (text) => {
      output += text
      failure ??= /^ *not ok \d+ (?!.*# (?:SKIP|TODO)).*(?=\n)/m.exec(output)?.[0].trim()
      // One failure will do, but the kernel lab has to be taken down.
      if (failure !== undefined && !labIsUp(test, output)) end()
    })
    child.on('error', reject)
    child.on('exit', (code) => {
      clearTimeout(timer)
      resolve({ failure: code === 0 ? undefined : failure ?? `exit code ${code}`, timedOut, took: performance.now() - began })
    })
  })
}

/** A process that runs one test after the other. */
class Warm {
  #started: Started | undefined

  run (test: string, mutant: string | undefined, limit: number): Promise<Run> {
    return new Promise((resolve) => {
      const began = performance.now()
      const { child } = this.#started ??= start(join(__dirname, 'warm.js'), ['ignore', 'ignore', 'ignore', 'ipc'], {})
      const settle = (failure: string | undefined, timedOut: boolean) => {
        clearTimeout(timer)
        child.removeAllListeners('message').off('exit', onExit)
        resolve({ failure, timedOut, took: performance.now() - began })
      }
      const onExit = () => {
        this.#started = undefined
        settle('it ended the process', false)
      }
      const timer = setTimeout(() => {
        this.end()
        settle(undefined, true)
      }, limit)
      child.on('exit', onExit)
      child.on('message', (outcome: Outcome) => {
        if (outcome.test === compiled(test)) settle(outcome.failure ?? undefined, false)
      })
      child.send({ test: compiled(test), mutant } satisfies Order, () => {})
    })
  }

  end (): void {
    this.#started?.end()
    this.#started = undefined
  }
}

interface Timed {
  readonly test: string
  readonly limit: number
}

const tryAnew = (test: string, mutant: string, limit: number) => run(test, limit, { __STRYKER_ACTIVE_MUTANT__: mutant })

async function isKilled (mutant: string, tests: readonly Timed[]): Promise<boolean> {
  for (const { test, limit } of tests) {
    const { failure, timedOut } = await tryAnew(test, mutant, limit)
    if (failure !== undefined || timedOut) return true
  }
  return false
}

class ProcessRunner implements api.TestRunner {
  readonly #warm = new Warm()
  // What failed in its process since that was last seen to be sound.
  #believed: Array<{ readonly mutant: string, readonly tests: readonly Timed[] }> = []

  capabilities () {
    return { reloadEnvironment: true }
  }

  async dryRun ({ files = [] }: api.DryRunOptions): Promise<api.DryRunResult> {
    const took: Record<string, number> = {}
    const perTest: Record<string, Record<string, number>> = {}
    const tests: api.TestResult[] = []
    for (const test of new Set(files.flatMap((file) => testsOf[relative(process.cwd(), file)] ?? []))) {
      const directory = mkdtempSync(join(tmpdir(), 'mutation-'))
      const { failure, took: timeSpentMs } = await run(test, 120_000, { MUTATION_REACHED: directory, NODE_OPTIONS: `--require=${recorder}` })
      const reached = readdirSync(directory).flatMap((name) => readFileSync(join(directory, name), 'utf8').trim().split('\n'))
      rmSync(directory, { recursive: true })
      perTest[test] = Object.fromEntries(reached.map((mutant) => [mutant, 1]))
      took[test] = timeSpentMs
      const result = { id: test, name: test, timeSpentMs }
      tests.push(failure === undefined
        ? { ...result, status: 0 satisfies api.TestStatus.Success }
        : { ...result, status: 1 satisfies api.TestStatus.Failed, failureMessage: failure })
    }
    writeFileSync(times, JSON.stringify(took))
    return { status: 'complete' as api.DryRunStatus.Complete, tests, mutantCoverage: { static: {}, perTest } }
  }

  async mutantRun ({ activeMutant, testFilter = [], sandboxFileName }: api.MutantRunOptions): Promise<api.MutantRunResult> {
    const file = relative(process.cwd(), sandboxFileName)
    // Survivors take longest, for all tests have to pass. Here lines and columns are counted from 0, and the file is the original.
    const { location: { start, end }, replacement, fileName } = activeMutant
    const from1 = ({ line, column }: Readonly<Record<'line' | 'column', number>>) => ({ line: line + 1, column: column + 1 })
    if (isKnown(file, { location: { start: from1(start), end: from1(end) }, replacement }, fileName)) {
      return { status: 'survived' as api.MutantRunStatus.Survived, nrOfTests: 0 }
    }
    const took = JSON.parse(readFileSync(times, 'utf8')) as Record<string, number>
    const tests = (testsOf[file] ?? []).filter((test) => testFilter.includes(test))
      .map((test) => ({ test, limit: 3_000 + 4 * (took[test] as number) }))
    for (const [i, { test, limit }] of tests.entries()) {
      const isCold = cold.test(test) || unsettling.has(file)
      const { failure, timedOut } = isCold ? await tryAnew(test, activeMutant.id, limit) : await this.#warm.run(test, activeMutant.id, limit)
      if (timedOut) return { status: 'timeout' as api.MutantRunStatus.Timeout, reason: test }
      if (failure !== undefined) {
        if (!isCold) await this.#believe(activeMutant.id, tests.slice(i))
        return { status: 'killed' as api.MutantRunStatus.Killed, killedBy: [test], failureMessage: failure, nrOfTests: i + 1 }
      }
    }
    return { status: 'survived' as api.MutantRunStatus.Survived, nrOfTests: tests.length }
  }

  /** Takes it that the first of `tests` has killed a mutant, and looks back now and then. */
  async #believe (mutant: string, tests: readonly Timed[]): Promise<void> {
    this.#believed.push({ mutant, tests })
    if (this.#believed.length < BELIEVED) return
    const believed = this.#believed
    this.#believed = []
    const [{ test, limit }] = tests as [typeof tests[number]]
    const without = await this.#warm.run(test, undefined, limit)
    if (!without.timedOut && without.failure === undefined) return
    this.#warm.end()
    for (const { mutant, tests } of believed) {
      if (!await isKilled(mutant, tests)) appendFileSync(process.env.MUTATION_REVOKED as string, `${mutant}\n`)
    }
  }

  async dispose (): Promise<void> {
    this.#warm.end()
  }
}

export const strykerPlugins = [{ kind: 'TestRunner', name: 'processes', injectableClass: ProcessRunner }]
