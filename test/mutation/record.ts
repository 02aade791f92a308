import { openSync, writeSync } from 'node:fs'
import { threadId } from 'node:worker_threads'

// Preloaded into each process of a test while Stryker asks which mutants it reaches.

const file = openSync(`${process.env.MUTATION_REACHED}/${process.pid}-${threadId}`, 'a')
let reached = ''

function flush (): void {
  writeSync(file, reached)
  reached = ''
}

// Soon, for a child of a test may be killed any moment; but not at once: between a system call and its errno there must be
// no other.
const counts = new Proxy<Record<string, number>>({}, {
  set (counts, mutant: string, count: number) {
    if (!(mutant in counts)) {
      if (reached === '') setImmediate(flush).unref()
      reached += `${mutant}\n`
    }
    counts[mutant] = count
    return true
  }
})
process.on('exit', flush)
;(globalThis as { __stryker__?: object }).__stryker__ = { mutantCoverage: { static: counts, perTest: {} } }
