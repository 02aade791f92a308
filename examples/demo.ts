// npm start: shows the answers for connections that carry TOA, then serves the user's own requests.

import { once } from 'node:events'
import { release } from 'node:os'
import { help, readArguments, type Arguments } from './demo/arguments'
import { openKernelLab } from './demo/lab'
import { openNamespace } from './demo/namespace'
import { openPlain } from './demo/plain'
import { COLUMNS, drawJson, drawOptions, drawRequest, drawTable, drawWay, paint, wrap } from './demo/print'
import { createServer } from './demo/server'
import type { Stage } from './demo/stage'
import { planVisits, type Seen } from './demo/visit'

const PORT = 3000

const stop = new AbortController()

async function run ({ client, once: onlyOnce }: Arguments): Promise<void> {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort())
  const { version } = require('fastify-real-ip/package.json')
  const kernel = process.platform === 'linux' ? `Linux ${release()}` : process.platform
  say(`${paint('bold', `fastify-real-ip ${version}`)} on Node.js ${process.versions.node}, ${kernel}\n`)
  const stage = await openStage(client)
  try {
    show(stage)
    if (!onlyOnce) await serve(stage)
  } finally {
    await stage.close()
  }
}

/** Opens the best stage that this machine allows. */
async function openStage (client: string | undefined): Promise<Stage> {
  const why: string[] = []
  for (const open of [openNamespace, openKernelLab]) {
    try {
      return await open(planVisits(client), stop.signal)
    } catch (error) {
      stop.signal.throwIfAborted()
      why.push((error as Error).message)
    }
  }
  return await openPlain(why, client)
}

function show ({ about, way, options, checked, seen }: Stage): void {
  const [first] = seen as [Seen]
  tell(`${about}\n`)
  say(`${drawWay(way(first))}\n`)
  say(`${drawOptions(options)}\n`)
  say(`${drawTable(seen, checked)}\n`)
  if (first.log !== undefined) say(`The first one's line in the access log, by pino:\n${drawJson(first.log)}\n`)
  const told = seen.find(({ visit, answer }) => visit.by === 'stranger' && answer?.ip === visit.client)
  if (told !== undefined) {
    tell(`Fastify's own request.ip is ${told.visit.client} for the stranger too, who only claims this address.\n`)
  }
  const { ip, realAddress } = first.answer ?? {}
  if (ip !== realAddress?.address) {
    tell(`Fastify's own request.ip is ${ip} for the first, as for every client behind this balancer.\n`)
  }
}

/** Answers the user's own requests until Ctrl-C. */
async function serve ({ own }: Stage): Promise<void> {
  const app = await createServer(own.options, () => {})
  app.addHook('onResponse', async ({ method, url, realAddress }) => say(drawRequest(method, url, realAddress)))
  const origin = await app.listen({ host: '127.0.0.1', port: PORT }).catch((error) => {
    if (error.code !== 'EADDRINUSE') throw error
    return app.listen({ host: '127.0.0.1', port: 0 })
  })
  tell(`Now send your own requests to this server. ${own.about}\n`)
  say(`${drawOptions(own.options)}\n\n  curl ${paint('bold', `${origin}/`)}\n\nPress Ctrl-C to exit.\n`)
  if (!stop.signal.aborted) await once(stop.signal, 'abort')
  await app.close()
}

/** Text, wrapped to the terminal. */
function tell (text: string): void {
  for (const line of text.split('\n')) say(wrap(line, COLUMNS).join('\n'))
}

function say (text: string): void {
  process.stdout.write(`${text}\n`)
}

// The reader may close the pipe early.
process.stdout.on('error', () => process.exit())

const given = readArguments(process.argv.slice(2))
if (given === 'help') {
  say(help)
} else if (given instanceof Error) {
  process.stderr.write(`${given.message}\n`)
  process.exitCode = 2
} else {
  run(given).catch((error) => {
    if (stop.signal.aborted) process.exitCode = 130
    else throw error
  })
}
