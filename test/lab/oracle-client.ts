// The program behind `client.oracle()`: runs in the client's cgroup and takes orders from the test.

import { once } from 'node:events'
import * as net from 'node:net'
import type { Claim, Ending, OracleAgain, OracleAsk, OracleOrder, OracleReport, OracleRun, OracleTally } from './oracle'
import { end, halfOfTls, reset, speak, type Speaker } from './speak'
import { claimedBy, type Stamp } from './stamp'

interface Answer { realIp?: string, port?: number, source?: string }

interface Connection extends Speaker<Answer> {
  /** what the client was set to when it was made */
  readonly stamp: Stamp | null
}

const SAMPLES_MAX = 5

const kept: Connection[] = []

function newTally (): OracleTally {
  return { connections: 0, answers: 0, right: 0, wrong: 0, errors: 0, abandoned: 0, sources: {}, samples: [], messages: [] }
}

async function abandon (raw: net.Socket, options: OracleRun): Promise<void> {
  if (options.abandon === 'tls') {
    await halfOfTls(raw, options.protocol ?? 'http')
  } else if (options.abandon === 'request') {
    const connection = await speak(raw, options.protocol ?? 'http')
    await connection.send(options.path ?? '/whoami')
  }
  await reset(raw)
}

async function finish (connection: Connection, ending: Ending): Promise<void> {
  if (ending === 'keep') kept.push(connection)
  else if (ending === 'end') await end(connection)
  else await reset(connection.raw)
}

async function interrogate (connection: Connection, options: OracleAsk, tally: OracleTally): Promise<void> {
  for (let i = 0; i < (options.requests ?? 1); i++) {
    const expected = expectation(connection, options)
    const got = await connection.ask(options.path ?? '/whoami')
    tally.answers++
    if (got.source !== undefined) tally.sources[got.source] = (tally.sources[got.source] ?? 0) + 1
    if (expected.some(claim => agrees(got, claim)) && (options.source ?? got.source) === got.source) {
      tally.right++
      continue
    }
    tally.wrong++
    if (tally.samples.length < SAMPLES_MAX) tally.samples.push({ localPort: connection.localPort, expected, got })
  }
}

function expectation ({ stamp, localPort, localAddress }: Connection, { expect = 'stamped' }: OracleAsk): Claim[] {
  if (typeof expect === 'object') return [expect]
  const peer = { address: localAddress, port: localPort }
  if (expect === 'peer') return [peer]
  if (stamp === null || stamp.bytes !== undefined) throw new Error('the client claims no one address: tell the oracle what to expect')
  const claimed = claimedBy(stamp, localPort)
  return expect === 'stamped' ? [claimed] : [claimed, peer]
}

function agrees (got: Answer, claim: Claim): boolean {
  return got.realIp === claim.address && got.port === (claim.port ?? got.port)
}

/** Does all `jobs`, some at a time, until the time is over. */
async function inParallel<Job> (jobs: Job[], options: OracleAsk, tally: OracleTally, work: (job: Job) => Promise<void>): Promise<void> {
  const queue = jobs.values()
  const timeout = new AbortController()
  const timer = setTimeout(() => timeout.abort(), options.timeout ?? 30_000)
  const timedOut = once(timeout.signal, 'abort').then(() => { throw new Error('timed out') })
  timedOut.catch(() => {}) // perhaps nobody is waiting any more

  async function worker (): Promise<void> {
    for (const job of queue) {
      tally.connections++
      try {
        await Promise.race([timeout.signal.aborted ? timedOut : work(job), timedOut])
      } catch (error) {
        tally.errors++
        if (tally.messages.length < SAMPLES_MAX) tally.messages.push(String(error))
      }
    }
  }
  await Promise.all(Array.from({ length: options.concurrency ?? 64 }, worker))
  clearTimeout(timer)
}

async function run (options: OracleRun, stamp: Stamp | null): Promise<OracleTally> {
  const tally = newTally()
  const sockets = new Set<net.Socket>()
  const jobs = Array.from({ length: options.connections ?? 1 }, (_, i) => i)

  await inParallel(jobs, options, tally, async () => {
    const raw = net.connect({ host: options.host ?? '127.0.0.1', port: options.port })
    raw.on('error', () => {}) // whoever waits for the socket hears of it as well
    sockets.add(raw)
    await once(raw, 'connect')
    if (options.abandon !== undefined) {
      await abandon(raw, options)
      tally.abandoned++
    } else {
      const connection = { stamp, ...await speak<Answer>(raw, options.protocol ?? 'http') }
      await interrogate(connection, options, tally)
      await finish(connection, options.then ?? 'end')
    }
    sockets.delete(raw)
  })
  for (const failed of sockets) failed.destroy()
  return tally
}

async function again (options: OracleAgain): Promise<OracleTally> {
  const tally = newTally()
  const connections = kept.splice(0, options.count ?? kept.length)
  const failed = new Set(connections)

  await inParallel(connections, options, tally, async connection => {
    await interrogate(connection, options, tally)
    await finish(connection, options.then ?? 'keep')
    failed.delete(connection)
  })
  for (const { raw } of failed) raw.destroy()
  return tally
}

process.on('message', async (message: OracleOrder) => {
  const tally = message.order === 'run' ? await run(message.options, message.stamp) : await again(message.options)
  const report: OracleReport = { id: message.id, tally }
  process.send!(report)
})
process.on('disconnect', () => process.exit())
