import { writeFileSync } from 'node:fs'
import { cpus, release } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { chooseCores } from './child'
import { heap } from './heap'
import { forwarded, log, ranges } from './loops'
import { IPv4 } from './network'
import { policy } from './policy'
import { read } from './read'
import { formatRow, type Row } from './report'
import { request } from './request'
import { syscall } from './syscall'

// npm run bench [-- --only NAME] [-- --pairs N]

export interface Cores {
  readonly server: number
  readonly client: number
}

export interface Run {
  /** sessions of `request` */
  readonly pairs: number
  readonly cores: Cores | undefined
  readonly progress: (done: string) => void
}

export interface Figure {
  readonly name: string
  readonly title: string
  measure (run: Run): Promise<Row[]>
}

const figures: readonly Figure[] = [read, policy, syscall, ranges, forwarded, log, request, heap]
const RESULTS = join(__dirname, '../../bench/results.json')

async function main (): Promise<void> {
  const { values } = parseArgs({ options: { only: { type: 'string' }, pairs: { type: 'string', default: '50' } } })
  const pairs = Number(values.pairs)
  const chosen = figures.filter(({ name }) => values.only === undefined || values.only === name)
  if (!(pairs >= 1) || !Number.isInteger(pairs) || chosen.length === 0) {
    throw new Error(`usage: npm run bench -- [--only ${figures.map(({ name }) => name).join('|')}] [--pairs N]`)
  }
  const cores = chooseCores()
  if (cores === undefined) console.log('server and client share their cores: there is no taskset, or only one core')
  if (IPv4.from === undefined) console.log('clients have a loopback address, which costs the plugin a second look: there is no other')
  console.log('medians [95 % interval] of ratios within this run; the control is the same thing against itself\n')

  const results: Record<string, Row[]> = {}
  for (const { name, title, measure } of chosen) {
    const progress = (done: string) => {
      if (process.stdout.isTTY) process.stdout.write(`\r\x1b[K${name}: ${done}`)
    }
    const rows = results[name] = await measure({ pairs, cores, progress })
    if (process.stdout.isTTY) process.stdout.write('\r\x1b[K')
    console.log(`${name}: ${title}`)
    for (const row of rows) console.log(formatRow(row))
    console.log()
  }
  // Figures of different runs do not belong in one file.
  if (chosen.length === figures.length) {
    writeFileSync(RESULTS, JSON.stringify({ ...surroundings(cores), pairs, results }, undefined, 2) + '\n')
  }
}

function surroundings (cores: Cores | undefined) {
  return {
    date: new Date().toISOString().slice(0, 10),
    node: process.version,
    kernel: /^\d+\.\d+(\.\d+)?/.exec(release())?.[0],
    machine: `${process.platform} ${process.arch}, ${cpus().length} × ${cpus()[0]?.model.trim()}`,
    pinned: cores !== undefined
  }
}

main().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
