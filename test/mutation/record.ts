import { openSync, writeSync } from 'node:fs'
import { threadId } from 'node:worker_threads'

// Preloaded into each process of a test while Stryker asks which mutants it reaches. Written at once: a child of a test
// may be killed any moment.

const file = openSync(`${process.env.MUTATION_REACHED}/${process.pid}-${threadId}`, 'a')
const reached = new Proxy<Record<string, number>>({}, {
  set (counts, mutant: string, count: number) {
    if (!(mutant in counts)) writeSync(file, `${mutant}\n`)
    counts[mutant] = count
    return true
  }
})
;(globalThis as { __stryker__?: object }).__stryker__ = { mutantCoverage: { static: reached, perTest: {} } }
