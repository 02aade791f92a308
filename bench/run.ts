import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { isDeepStrictEqual, parseArgs } from 'node:util'
import { attach } from './attach'
import { chooseCores } from './child'
import { writeDocuments, RESULTS } from './documents'
import type { Cores, Figure, Measured, Results } from './figure'
import { idle } from './idle'
import { forwarded, log, ranges } from './loops'
import { IPv4 } from './network'
import { open } from './open'
import { policy } from './policy'
import { proxy } from './proxy'
import { read } from './read'
import { formatRow } from './report'
import { requests } from './request'
import { resolve } from './resolve'
import { startup } from './startup'
import { syscall } from './syscall'

// npm run bench [-- --only NAME [--record]] [-- --pairs N]

// In the order of output.
const figures: readonly Figure[] = [
  ...requests, proxy, resolve, read, policy, syscall, attach, open, idle, startup, ranges, forwarded, log
]
const PAIRS = 100
// On two otherwise idle cores.
const SECONDS: Readonly<Record<string, (pairs: number) => number>> = {
  'keep-alive': (pairs) => 17 * pairs,
  proxied: (pairs) => 7 * pairs,
  'one-shot': (pairs) => 20 * pairs,
  'one-shot-sources': (pairs) => 2 * pairs,
  tls: (pairs) => 3 * pairs,
  http2: (pairs) => 6 * pairs,
  proxy: (pairs) => 14 * pairs,
  resolve: () => 300,
  read: () => 600,
  policy: () => 480,
  syscall: () => 40,
  attach: () => 70,
  open: () => 800,
  idle: () => 160,
  startup: () => 320,
  ranges: () => 20,
  forwarded: () => 100,
  log: () => 20
}

async function main (): Promise<void> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      record: { type: 'boolean', default: false },
      pairs: { type: 'string', default: String(PAIRS) }
    }
  })
  const pairs = Number(values.pairs)
  const chosen = figures.filter(({ name }) => values.only === undefined || values.only === name)
  if ((values.record && pairs < PAIRS) || !(pairs >= 1) || !Number.isInteger(pairs) || chosen.length === 0) {
    throw new Error(`usage: npm run bench -- [--only ${figures.map(({ name }) => name).join('|')} [--record]] [--pairs N]; what is recorded takes ${PAIRS} pairs or more`)
  }
  const cores = chooseCores()
  if (cores === undefined) console.log('server and client share their cores: there is no taskset, or only one core')
  if (IPv4.from === undefined) {
    console.log('clients have a loopback address, which costs the plugin a second look: there is no other')
  }
  const expected = chosen.reduce((sum, { name }) => sum + (SECONDS[name]?.(pairs) ?? 0), 0)
  console.log(`about ${Math.ceil(expected / 60)} min; medians [95 % interval] of ratios within this run; the control is the same thing against itself\n`)

  const measured: Measured[] = []
  for (const { name, title, measure } of chosen) {
    const progress = (done: string) => {
      if (process.stdout.isTTY) process.stdout.write(`\r\x1b[K${name}: ${done}`)
    }
    const start = performance.now()
    const rows = await measure({ pairs, cores, progress })
    measured.push({ name, date: new Date().toISOString().slice(0, 10), title, rows })
    if (process.stdout.isTTY) process.stdout.write('\r\x1b[K')
    console.log(`${name}: ${title} (${Math.round((performance.now() - start) / 1000)} s)`)
    for (const row of rows) console.log(formatRow(row))
    console.log()
  }
  // Trial runs are not recorded.
  if (pairs >= PAIRS && (chosen.length === figures.length || values.record)) record(measured, surroundings(cores))
}

/** Replaces the same figure of an earlier run on the same machine. */
function record (measured: readonly Measured[], here: ReturnType<typeof surroundings>): void {
  let kept: readonly Measured[] = []
  if (measured.length < figures.length) {
    const { figures, ...there } = JSON.parse(readFileSync(RESULTS, 'utf8')) as Results
    if (!isDeepStrictEqual(there, here)) {
      throw new Error('the other figures are of another machine: run all of them, npm run bench')
    }
    kept = figures
  }
  const all = figures.flatMap(({ name: wanted }) =>
    measured.find(({ name }) => name === wanted) ?? kept.find(({ name }) => name === wanted) ?? [])
  writeFileSync(RESULTS, JSON.stringify({ ...here, figures: all } satisfies Results, undefined, 2) + '\n')
  writeDocuments()
}

function surroundings (cores: Cores | undefined) {
  return {
    node: process.version,
    kernel: /^\d+\.\d+(\.\d+)?/.exec(release())?.[0] ?? '',
    machine: `${process.platform} ${process.arch}, ${cpus().length} × ${cpus()[0]?.model.trim()}`,
    pinned: cores !== undefined
  }
}

main().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
