#!/usr/bin/env node

import { loadLibc, openBpf, openCapture } from '../kernel/libc'
import { type Arguments, help, readArguments, UsageError } from './arguments'
import { runAttach } from './attach'
import { diagnose, drawReport } from './doctor'
import { readMachine } from './machine'
import { watch } from './watch'

const { isTTY, columns } = process.stdout
const colours = isTTY && process.stdout.hasColors()
const say = (text: string) => { process.stdout.write(`${text}\n`) }
const note = (text: string) => { process.stderr.write(`${text}\n`) }

async function run (given: Arguments): Promise<number> {
  const { version } = require('fastify-real-ip/package.json') as { version: string }
  if (given === 'help') {
    process.stdout.write(help)
    return 0
  }
  if (given === 'version') {
    say(version)
    return 0
  }
  if (given.command === 'doctor') {
    const report = diagnose(await readMachine())
    say(given.json ? JSON.stringify({ version, ...report }, null, 2) : drawReport(report, { colours, columns }))
    return report.works ? 0 : 1
  }
  if (given.command !== 'watch') return runAttach(given, { bpf: openBpf(), version, say, note })
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => { stop.abort() })
  await watch(given, { libc: loadLibc(), openCapture, say, note, colours, signal: stop.signal })
  return 0
}

// Whoever reads the output may have seen enough.
for (const output of [process.stdout, process.stderr]) output.on('error', () => { process.exit() })

async function main (): Promise<void> {
  try {
    process.exitCode = await run(readArguments(process.argv.slice(2)))
  } catch (error) {
    note(`fastify-real-ip: ${(error as Error).message}`)
    process.exitCode = error instanceof UsageError ? 2 : 1
  }
}

void main()
