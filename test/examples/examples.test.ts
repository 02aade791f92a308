import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import WebSocket from 'ws'
import { freePort } from '../free-port'
import { type Example, runExample, startExample } from './example'
import { redisUnavailable, startRedis } from './redis'

t.setTimeout(120_000)

const required = process.env.FASTIFY_REAL_IP_LAB === 'required'
const linux = process.platform === 'linux'
// Where Linux takes any address of 127.0.0.0/8 for a client of its own, others have one.
const CLIENT = linux ? '127.0.0.9' : '127.0.0.1'
const NEIGHBOUR = '127.0.0.10'

interface Answer { status: number | undefined, body: string }

async function get ({ port }: Example, path = '/', localAddress = CLIENT, request: typeof http.get = http.get): Promise<Answer> {
  const sent = request({ host: '127.0.0.1', port, path, localAddress, agent: false, rejectUnauthorized: false } as http.RequestOptions)
  const [response] = await once(sent, 'response') as [http.IncomingMessage]
  return { status: response.statusCode, body: await text(response) }
}

const statuses = async (example: Example, count: number, localAddress?: string): Promise<Array<number | undefined>> => {
  const all = []
  for (let n = 0; n < count; n++) all.push((await get(example, '/', localAddress)).status)
  return all
}

/** Each example says hello, and ends well. */
function test (name: string, tests: (t: Test) => Promise<Example | undefined>): void {
  t.test(name, { skip: process.platform === 'win32' && 'Windows has no signals that a process can handle' }, async (t) => {
    const example = await tests(t)
    if (example !== undefined) t.equal(await example.end(), 0, 'it ends well')
  })
}

test('basic', async (t) => {
  const example = await startExample(t, 'basic')
  t.same(await get(example), { status: 200, body: `Hello, ${CLIENT}\n` })
  t.match(JSON.parse((await get(example, '/why')).body), { address: CLIENT, trust: 'trusted' })
  return example
})

test('basic, with TRUSTED_PEERS', async (t) => {
  if (!linux) return undefined
  const example = await startExample(t, 'basic', { TRUSTED_PEERS: '192.0.2.1,192.0.2.2' })
  t.match(JSON.parse((await get(example, '/why')).body), { address: CLIENT, trust: 'untrusted' })
  return example
})

const registering = readdirSync(join(__dirname, '../../../examples'))
  .filter((name) => name.endsWith('.ts') && name !== 'demo.ts').map((name) => name.replace(/\.ts$/, ''))

t.test('without TRUSTED_PEERS no example starts', async (t) => {
  t.equal(registering.length, 12)
  for (const name of registering) {
    await Promise.all([undefined, ''].map(async (TRUSTED_PEERS) => {
      const { code, stdout, stderr } = await runExample(name, { TRUSTED_PEERS, WORKERS: '1', REDIS: '/nonexistent/redis.sock' })
      t.equal(code, 1, `${name}, TRUSTED_PEERS=${TRUSTED_PEERS}`)
      t.notMatch(stdout, 'Server listening')
      t.match(stderr, 'FST_REAL_IP_INVALID_OPTION')
    }))
  }
})

test('access-log', async (t) => {
  for (const [names, address, trust] of [['plain', 'realIp', 'trust'], ['opentelemetry', 'client.address', 'real_ip.trust']] as const) {
    const example = await startExample(t, 'access-log', { LOG_NAMES: names })
    t.equal((await get(example)).status, 200)
    const incoming = JSON.parse(await example.line('incoming request'))
    t.equal(incoming.req[address], CLIENT)
    t.equal(incoming.req[trust], 'trusted')
    for (const message of ['incoming request', 'saying hello', 'request completed']) {
      t.equal(JSON.parse(await example.line(message))[address], CLIENT, message)
    }
    t.equal(await example.end(), 0, 'it ends well')
  }
  return undefined
})

test('rate-limit', async (t) => {
  const example = await startExample(t, 'rate-limit')
  t.same(await statuses(example, 6), [200, 200, 200, 200, 200, 429])
  if (linux) t.same(await statuses(example, 1, NEIGHBOUR), [200])
  return example
})

const noRedis = redisUnavailable()
t.test('rate-limit-redis', { skip: noRedis !== undefined && !required && noRedis }, async (t) => {
  const REDIS = await startRedis(t)
  const [one, two] = await Promise.all([startExample(t, 'rate-limit-redis', { REDIS }), startExample(t, 'rate-limit-redis', { REDIS })])
  t.same([...await statuses(one, 3), ...await statuses(two, 3)], [200, 200, 200, 200, 200, 429], 'one budget for both')
  if (linux) t.same(await statuses(two, 1, NEIGHBOUR), [200])
  for (const example of [one, two]) t.equal(await example.end(), 0, 'it ends well')
})

t.test('rate-limit-redis without Redis still answers', { skip: process.platform === 'win32' && 'no signals' }, async (t) => {
  const example = await startExample(t, 'rate-limit-redis', { REDIS: '/nonexistent/redis.sock' })
  t.same(await statuses(example, 6), [200, 200, 200, 200, 200, 200])
  t.match(JSON.parse(await example.line('"redis"')), { level: 50 })
  t.equal(await example.end(), 0, 'it ends well')
})

test('websocket', async (t) => {
  const example = await startExample(t, 'websocket')
  const socket = new WebSocket(`ws://127.0.0.1:${example.port}/ws`, { localAddress: CLIENT })
  const [greeting] = await once(socket, 'message')
  t.equal(String(greeting), `Hello, ${CLIENT}`)
  socket.send('anyone?')
  const [echo] = await once(socket, 'message')
  t.equal(String(echo), 'anyone?')
  t.equal(JSON.parse(await example.line('"message"')).client, CLIENT)
  const closed = once(socket, 'close')
  const code = await example.end()
  await closed
  t.equal(code, 0, 'it ends well with an open WebSocket')
  return undefined
})

test('https-http2', async (t) => {
  const example = await startExample(t, 'https-http2')
  t.same(await get(example, '/', CLIENT, https.get as typeof http.get), { status: 200, body: `Hello, ${CLIENT}, over HTTP/1.1\n` })
  const session = http2.connect(`https://127.0.0.1:${example.port}`, { rejectUnauthorized: false, localAddress: CLIENT } as http2.SecureClientSessionOptions)
  t.equal(await text(session.request({ ':path': '/' })), `Hello, ${CLIENT}, over HTTP/2.0\n`)
  session.close()
  await once(session, 'close')
  return example
})

test('cluster', async (t) => {
  // Both workers need the same one.
  const port = await freePort()
  // Its workers check who sends, which takes a listening socket each.
  const example = await startExample(t, 'cluster', { PORT: String(port), WORKERS: '2', ...linux && { TRUSTED_PEERS: '192.0.2.1' } })
  const { body } = await get(example)
  t.match(body, new RegExp(`^Hello, ${CLIENT}, from process \\d+\n$`))
  const [major, minor] = process.versions.node.split('.').map(Number) as [number, number]
  const alone = !linux || major < 22 || (major === 22 && minor < 12)
  if (alone) {
    t.ok(await example.line('one worker only: reusePort needs Linux and Node.js 22.12 or later'))
  } else {
    const processes = new Set<string>()
    while (processes.size < 2) processes.add((await get(example)).body)
    t.equal(processes.size, 2)
  }
  return example
})

test('metrics', async (t) => {
  const example = await startExample(t, 'metrics', linux ? { TRUSTED_PEERS: CLIENT } : {})
  await get(example)
  const { status, body } = await get(example, '/metrics')
  t.equal(status, 200)
  const value = (series: string) => Number(body.split('\n').find((line) => line.startsWith(`${series} `))?.split(' ')[1])
  t.equal(value('real_ip_connections_by_trust_total{trust="trusted"}'), 2)
  t.equal(value('real_ip_connections_by_trust_total{trust="untrusted"}'), 0)
  if (linux) t.equal(value('real_ip_connections_by_reason_total{reason="no-toa"}'), 2)
  t.equal(value('real_ip_connections_rejected_total'), 0)
  t.match(body, '# TYPE real_ip_connections_by_source_total counter')
  return example
})

test('otel', async (t) => {
  const example = await startExample(t, 'otel', linux ? { TRUSTED_PEERS: '192.0.2.1' } : {})
  t.equal((await get(example)).status, 200)
  t.ok(await example.line(`'client.address': '${CLIENT}'`))
  if (linux) t.ok(await example.line(`'network.peer.address': '${CLIENT}'`))
  return example
})
