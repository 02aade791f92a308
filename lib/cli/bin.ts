#!/usr/bin/env node

import { loadLibc, openBpf, openCapture } from '../kernel/libc'
import { type Arguments, help, readArguments, UsageError } from './arguments'
import { runAttach } from './attach'
import { diagnose, drawReport } from './doctor'
import { readMachine, tryKoffi } from './machine'
import { type Terminal, wrap } from './paint'
import { watch } from './watch'

const { stdout, stderr } = process
// A terminal can be resized while watch runs.
const terminal: Terminal = { colours: stdout.isTTY && stdout.hasColors(), get columns () { return stdout.columns } }
const say = (text: string) => { stdout.write(`${text}\n`) }
const note = (text: string) => { stderr.write(`${wrap(text, stderr.columns).join('\n')}\n`) }

async function run (given: Arguments): Promise<number> {
  const { version } = require('fastify-real-ip/package.json') as { version: string }
  if (given === 'help') {
    stdout.write(help)
    return 0
  }
  if (given === 'version') {
    say(version)
    return 0
  }
  if (given.command === 'doctor') {
    const report = diagnose(await readMachine())
    say(given.json ? JSON.stringify({ version, ...report }, null, 2) : drawReport(report, terminal))
    return report.works ? 0 : 1
  }
  if (given.command !== 'watch') return runAttach(given, { bpf: openBpf(), version, say, note })
  const stop = new AbortController()
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => { stop.abort() })
  const koffi = tryKoffi()
  const libc = koffi.state === 'fails' ? koffi.message : loadLibc()
  await watch(given, { libc, openCapture, say, note, terminal, signal: stop.signal })
  return 0
}

// The reader may close the pipe early.
for (const output of [stdout, stderr]) output.on('error', () => { process.exit() })

async function main (): Promise<void> {
  try {
    process.exitCode = await run(readArguments(process.argv.slice(2)))
  } catch (error) {
    note(`fastify-real-ip: ${(error as Error).message}`)
    process.exitCode = error instanceof UsageError ? 2 : 1
  }
}

void main()
