import { readFileSync } from 'node:fs'

// Mutates one file of lib/ after the other, each with the tests that tests.json names for it; all tests, for each survivor,
// would take days:
//
//   npm run mutation
//   npm run mutation -- lib/trust/judge.ts lib/trust/guard.ts

const testsOf = JSON.parse(readFileSync('test/mutation/tests.json', 'utf8')) as Record<string, string[]>

// A mutant that a few thousand random cases do not find counts as a survivor.
process.env.FASTIFY_REAL_IP_CASES ??= '2000'

async function run (): Promise<void> {
  const { Stryker } = await import('@stryker-mutator/core')
  const named = process.argv.slice(2)
  for (const file of named.length > 0 ? named : Object.keys(testsOf)) {
    const testFiles = (testsOf[file] ?? []).map((test) => `dist/test/${test}.test.js`)
    if (testFiles.length === 0) continue
    try {
      await new Stryker({ mutate: [file], tap: { testFiles } }).runMutationTest()
    } catch (error) {
      console.error(`${file}:`, error)
      process.exitCode = 1
    }
  }
}

void run()
