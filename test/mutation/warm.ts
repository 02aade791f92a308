import { Module } from 'node:module'
import { join } from 'node:path'
import { Test } from 'tap'

// Runs compiled tests for the mutants it is sent, one after the other: Node.js, tap and Fastify start once. All of
// this package is loaded anew for each.

export interface Order {
  readonly test: string
  readonly mutant: string | undefined
}

/** Tap sends messages of its own. */
export interface Outcome {
  readonly test: string
  /** null: it passed. */
  readonly failure: string | null
}

const compiled = join(process.cwd(), 'dist')
const loader = Module as unknown as { _load: (request: string, ...rest: unknown[]) => unknown }
const stryker: { activeMutant?: string | undefined } = (globalThis as { __stryker__?: object }).__stryker__ = {}
let current: Test

const { _load: load } = loader
const tap = { __esModule: true, get default () { return current } }
loader._load = (request, ...rest) => request === 'tap' ? tap : load.call(loader, request, ...rest)

// Whoever asked is gone.
process.on('disconnect', () => { process.exit() })

process.on('message', ({ test, mutant }: Order) => {
  for (const path of Object.keys(require.cache)) {
    if (path.startsWith(compiled)) delete require.cache[path]
  }
  stryker.activeMutant = mutant
  if (mutant === undefined) delete process.env.__STRYKER_ACTIVE_MUTANT__
  else process.env.__STRYKER_ACTIVE_MUTANT__ = mutant
  const options: ConstructorParameters<typeof Test>[0] = { name: test, cb: async () => { require(join(process.cwd(), test)) } }
  current = new Test(options)
  current.resume()
  current.runMain(() => {
    const { ok = false, count = 0, failures = [] } = current.results ?? {}
    process.send?.({ test, failure: ok && count > 0 ? null : failures[0]?.name ?? 'failed' } satisfies Outcome)
  })
})
