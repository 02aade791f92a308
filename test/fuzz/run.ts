import { writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join, relative } from 'node:path'
import { parseArgs } from 'node:util'
import { addToCorpus, readCorpus } from './corpus'
import { Finding, fuzz } from './fuzz'
import { targets } from './targets'

// npm run fuzz [-- --cases N] [-- --seed N] [-- --only TARGET] [-- --results FILE]

/** From so many cases on a run that found nothing is written down. */
const LONG = 10_000_000
const RESULTS = join(__dirname, '../../../test/fuzz/results.json')
/** Cases between two signs of life. */
const STEP = 20_000

/** Throws a Finding. */
function run (name: string, cases: number, seed: number): void {
  const index = targets.findIndex((target) => target.name === name)
  const corpus = readCorpus(name).map(({ input }) => input)
  const start = performance.now()
  for (let done = 0; done < cases; done += STEP) {
    fuzz(targets[index]!, corpus, Math.min(STEP, cases - done), Math.imul(seed + index + done, 0x9e3779b1))
    if (process.stdout.isTTY) process.stdout.write(`\r\x1b[K${name}: ${done} of ${cases}`)
  }
  if (process.stdout.isTTY) process.stdout.write('\r\x1b[K')
  console.log(`${name.padEnd(16)} ${String(cases).padStart(9)} cases, ${Math.round(cases / (performance.now() - start) * 1000)} a second`)
}

function main (): void {
  const { values } = parseArgs({
    options: {
      cases: { type: 'string', default: '300000' }, seed: { type: 'string' }, only: { type: 'string' }, results: { type: 'string' }
    }
  })
  const total = Number(values.cases)
  const seed = Number(values.seed ?? Math.floor(Math.random() * 0x7fffffff))
  const chosen = targets.filter(({ name }) => values.only === undefined || values.only === name)
  if (!Number.isInteger(total) || total < 1 || !Number.isInteger(seed) || chosen.length === 0) {
    throw new Error(`usage: npm run fuzz -- [--cases N] [--seed N] [--only ${targets.map(({ name }) => name).join('|')}] [--results FILE]`)
  }
  console.log(`seed ${seed}`)
  // Wrong options make errors by the thousand, whose stacks nobody reads.
  Error.stackTraceLimit = 0

  const shares = chosen.reduce((sum, { share }) => sum + share, 0)
  const start = performance.now()
  const counts: Record<string, number> = {}
  for (const { name, share } of chosen) run(name, counts[name] = Math.ceil(total * share / shares), seed)
  const cases = Object.values(counts).reduce((sum, count) => sum + count)
  const seconds = Math.round((performance.now() - start) / 1000)
  console.log(`${cases} cases in ${seconds} s, nothing found`)

  const file = values.results ?? (total >= LONG && chosen.length === targets.length ? RESULTS : undefined)
  if (file === undefined) return
  writeFileSync(file, JSON.stringify({
    date: new Date().toISOString().slice(0, 10),
    node: process.version,
    machine: `${process.platform} ${process.arch}, ${cpus().length} × ${cpus()[0]?.model.trim()}`,
    seed,
    seconds,
    cases,
    targets: counts
  }, undefined, 2) + '\n')
}

try {
  main()
} catch (error) {
  process.exitCode = 1
  if (error instanceof Finding) {
    console.error(`\n${error.message}\n${Buffer.from(error.input).toString('latin1')}`)
    console.error(`now in ${relative(process.cwd(), addToCorpus(error.target.name, error.input))}`)
  } else {
    console.error(error)
  }
}
