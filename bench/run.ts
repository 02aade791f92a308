import { readFileSync, writeFileSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { isDeepStrictEqual, parseArgs } from 'node:util'
import { attach } from './attach'
import { chooseCores } from './child'
import { writeDocuments, RESULTS } from './documents'
import type { Cores, Figure, Results } from './figure'
import { idle } from './idle'
import { forwarded, log, ranges } from './loops'
import { IPv4 } from './network'
import { open } from './open'
import { policy } from './policy'
import { proxy } from './proxy'
import { read } from './read'
import { formatRow, type Row } from './report'
import { behindProxy, http2, idleStart, keepAlive, oneShot, oneShotLoopback, oneShotSources, tls } from './request'
import { resolve } from './resolve'
import { startup } from './startup'
import { syscall } from './syscall'

// npm run bench [-- --only NAME [--record]] [-- --sessions N]

// What users ask most comes first: a run that is stopped has it.
const figures: readonly Figure[] = [
  oneShot, keepAlive, proxy, oneShotLoopback, read, idleStart, behindProxy, resolve, policy, attach, idle, startup,
  tls, http2, oneShotSources, syscall, ranges, forwarded, log, open
]
// On two otherwise idle cores.
const SECONDS: Readonly<Record<string, number>> = {
  'one-shot': 270,
  'one-shot-loopback': 150,
  'keep-alive': 210,
  proxy: 280,
  read: 210,
  'idle-start': 285,
  proxied: 90,
  resolve: 100,
  policy: 130,
  attach: 70,
  idle: 130,
  startup: 80,
  tls: 135,
  http2: 100,
  'one-shot-sources': 120,
  syscall: 40,
  ranges: 15,
  forwarded: 70,
  log: 15,
  open: 160
}

async function main (): Promise<void> {
  const { values } = parseArgs({
    options: {
      only: { type: 'string' },
      record: { type: 'boolean', default: false },
      sessions: { type: 'string' }
    }
  })
  const sessions = values.sessions === undefined ? undefined : Number(values.sessions)
  const chosen = figures.filter(({ name }) => values.only === undefined || values.only === name)
  const trial = sessions !== undefined
  if ((values.record && trial) || (trial && !(sessions >= 1 && Number.isInteger(sessions))) || chosen.length === 0) {
    throw new Error(`usage: npm run bench -- [--only ${figures.map(({ name }) => name).join('|')} [--record]] [--sessions N]; a trial with N sessions is not recorded`)
  }
  const cores = chooseCores()
  if (cores === undefined) console.log('server and client share their cores: there is no taskset, or only one core')
  if (IPv4.from === undefined) {
    console.log('clients have a loopback address, which costs the plugin a second look: there is no other')
  }
  const expected = chosen.reduce((sum, { name }) => sum + (SECONDS[name] ?? 0), 0)
  console.log(`${trial ? 'a trial' : `about ${Math.ceil(expected / 60)} min`}; medians [95 % interval] of ratios within this run; the control is the same thing against itself\n`)

  const here = surroundings(cores)
  const recorded = !trial && (values.only === undefined || values.record)
  const sameMachine = isDeepStrictEqual(readResults().surroundings, here)
  if (recorded && values.only !== undefined && !sameMachine) {
    throw new Error('the other figures are of another machine: run all of them, npm run bench')
  }
  let results = recorded && sameMachine ? readResults().figures : []
  for (const { name, title, measure } of chosen) {
    const progress = (done: string) => {
      if (process.stdout.isTTY) process.stdout.write(`\r\x1b[K${name}: ${done}`)
    }
    const start = performance.now()
    let rows: Row[]
    try {
      rows = await measure({ sessions, cores, progress })
    } catch (error) {
      // The others are measured all the same.
      console.error(`${name}:`, error)
      process.exitCode = 1
      results = results.filter((figure) => figure.name !== name)
      continue
    }
    if (process.stdout.isTTY) process.stdout.write('\r\x1b[K')
    console.log(`${name}: ${title} (${Math.round((performance.now() - start) / 1000)} s)`)
    for (const row of rows) console.log(formatRow(row))
    console.log()
    if (!recorded) continue
    const measured = { name, date: new Date().toISOString().slice(0, 10), title, rows }
    results = figures.flatMap(({ name: wanted }) =>
      wanted === name ? measured : results.find(({ name }) => name === wanted) ?? [])
    // After each figure: a run that is stopped loses only those that follow.
    writeFileSync(RESULTS, JSON.stringify({ ...here, figures: results } satisfies Results, undefined, 2) + '\n')
    writeDocuments()
  }
}

function readResults () {
  const { figures, ...surroundings } = JSON.parse(readFileSync(RESULTS, 'utf8')) as Results
  return { surroundings, figures }
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
