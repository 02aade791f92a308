import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'

// Mutates one file of lib/ after the other, each with the tests that tests.json names for it; all tests, for each survivor,
// would take days:
//
//   npm run mutation
//   npm run mutation -- lib/trust/judge.ts lib/trust/guard.ts
//   npm run mutation -- --each 5 lib/cli/doctor.ts     every fifth mutant

const testsOf = JSON.parse(readFileSync('test/mutation/tests.json', 'utf8')) as Record<string, string[]>

// A mutant that a few thousand random cases do not find counts as a survivor.
process.env.FASTIFY_REAL_IP_CASES ??= '2000'

const { values: { each }, positionals: named } = parseArgs({ options: { each: { type: 'string', default: '1' } }, allowPositionals: true })
if (!(Number(each) >= 1)) throw new Error(`--each takes a number from 1, not ${each}`)
process.env.FASTIFY_REAL_IP_EACH_MUTANT = each

async function run (): Promise<void> {
  const { Stryker } = await import('@stryker-mutator/core')
  for (const file of named.length > 0 ? named : Object.keys(testsOf)) {
    const testFiles = (testsOf[file] ?? []).map((test) => `dist/test/${test}.test.js`)
    if (testFiles.length === 0) continue
    try {
      await new Stryker({ mutate: [file], tap: { testFiles }, checkers: each === '1' ? [] : ['sample'] }).runMutationTest()
    } catch (error) {
      console.error(`${file}:`, error)
      process.exitCode = 1
    }
  }
}

void run()
