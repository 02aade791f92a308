// The program behind `client.oracle()`: runs in the client's cgroup and takes orders from the test.

import { once } from 'node:events'
import * as http from 'node:http'
import * as http2 from 'node:http2'
import * as net from 'node:net'
import { Duplex } from 'node:stream'
import { text } from 'node:stream/consumers'
import * as tls from 'node:tls'
import type { Claim, Ending, OracleAgain, OracleAsk, OracleOrder, OracleReport, OracleRun, OracleTally } from './oracle'
import { claimedBy, type Stamp } from './stamp'

interface Answer { realIp?: string, port?: number, source?: string }

interface Connection {
  /** what the client was set to when it was made */
  readonly stamp: Stamp | null
  readonly raw: net.Socket
  readonly localPort: number
  readonly localAddress: string
  ask (path: string): Promise<Answer>
  /** resolves with the request on its way and its answer not awaited */
  send (path: string): Promise<void>
  end (): void
}

type Protocol = NonNullable<OracleRun['protocol']>

const SAMPLES_MAX = 5

const kept: Connection[] = []

function newTally (): OracleTally {
  return { connections: 0, answers: 0, right: 0, wrong: 0, errors: 0, abandoned: 0, sources: {}, samples: [], messages: [] }
}

function startTls (socket: Duplex, protocol: Protocol): tls.TLSSocket {
  const secure = tls.connect({ socket, rejectUnauthorized: false, ALPNProtocols: [protocol === 'h2' ? 'h2' : 'http/1.1'] })
  secure.on('error', () => {})
  return secure
}

/** Our hello goes out, the server's answer comes in, and nobody reads it. */
async function halfOfTls (raw: net.Socket, protocol: Protocol): Promise<void> {
  const wire = new Duplex({
    read () {},
    write (chunk, _encoding, done) { raw.write(chunk, done) }
  })
  const secure = startTls(wire, protocol)
  await once(raw, 'data')
  secure.destroy()
}

async function speak (raw: net.Socket, protocol: Protocol, stamp: Stamp | null): Promise<Connection> {
  const { localPort = 0, localAddress = '' } = raw
  let socket = raw
  if (protocol === 'https' || protocol === 'h2') {
    socket = startTls(raw, protocol)
    await once(socket, 'secureConnect')
  }
  const speaker = protocol === 'http' || protocol === 'https' ? speakHttp1(socket) : await speakHttp2(socket)
  return { stamp, raw, localPort, localAddress, ...speaker }
}

function speakHttp1 (socket: net.Socket): Pick<Connection, 'ask' | 'send' | 'end'> {
  const agent = Object.assign(new http.Agent({ keepAlive: true, maxSockets: 1 }), { createConnection: () => socket })
  const request = (path: string) => http.request({ agent, path, host: 'oracle' })
  return {
    async ask (path) {
      const sent = request(path).end()
      const [response] = await once(sent, 'response') as [http.IncomingMessage]
      return JSON.parse(await text(response))
    },
    async send (path) {
      const sent = request(path).on('error', () => {}).end()
      await once(sent, 'finish')
    },
    end () { socket.end() }
  }
}

async function speakHttp2 (socket: net.Socket): Promise<Pick<Connection, 'ask' | 'send' | 'end'>> {
  const session = http2.connect('http://oracle', { createConnection: () => socket })
  session.on('error', () => {})
  await once(session, 'connect')
  return {
    async ask (path) {
      return JSON.parse(await text(session.request({ ':path': path })))
    },
    async send (path) {
      session.request({ ':path': path }).on('error', () => {})
      // frames keep their order: once the ping is answered, the request has been read
      await new Promise<void>((resolve, reject) => {
        session.ping(error => error === null ? resolve() : reject(error))
      })
    },
    end () { session.close() }
  }
}

async function abandon (raw: net.Socket, options: OracleRun): Promise<void> {
  if (options.abandon === 'tls') {
    await halfOfTls(raw, options.protocol ?? 'http')
  } else if (options.abandon === 'request') {
    const connection = await speak(raw, options.protocol ?? 'http', null)
    await connection.send(options.path ?? '/whoami')
  }
  await reset(raw)
}

async function reset (raw: net.Socket): Promise<void> {
  if (raw.closed) return
  const closed = once(raw, 'close')
  raw.resetAndDestroy()
  await closed
}

async function end (connection: Connection): Promise<void> {
  if (connection.raw.closed) return
  const closed = once(connection.raw, 'close')
  connection.end()
  await closed
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
      const connection = await speak(raw, options.protocol ?? 'http', stamp)
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
