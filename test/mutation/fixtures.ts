import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

// Preloaded into each test: fixtures of its own, for the same test may run beside it, or have been ended before.

if (!process.env.TAP_CWD?.includes('mutation-')) {
  const directory = process.env.TAP_CWD = mkdtempSync(join(tmpdir(), 'mutation-'))
  process.on('exit', () => { rmSync(directory, { recursive: true, force: true }) })
}

// Stryker runs a test only for the mutants that its own process has reached, and does not see its child processes, in which
// the lab serves: each test counts for all mutants, more often than any loop runs in its time. Before the runner writes it down.
const MUTANTS_MAX = 10_000
const namespace = process.env.STRYKER_NAMESPACE ?? '__stryker__'
process.prependListener('exit', () => {
  const instrumented = (globalThis as Record<string, unknown>)[namespace] as { mutantCoverage?: object } | undefined
  if (process.env.STRYKER_DRY_RUN !== 'true' || instrumented === undefined) return
  const all = Object.fromEntries(Array.from({ length: MUTANTS_MAX }, (_, id) => [id, 1e9]))
  instrumented.mutantCoverage = { static: all, perTest: {} }
})
