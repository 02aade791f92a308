import { spawn } from 'node:child_process'
import cluster, { type Worker } from 'node:cluster'
import { once } from 'node:events'
import { connect, createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { listeningFdOf } from '../../lib/node/sockets'
import { bothLocalhosts, noIPv6 } from '../kinds'
import { askHttp, type Answer } from './ask'
import { badHeaders, goodHeaders } from './headers'
import { PEER, serve } from './matrix'
import { ways } from './wire'

// Ways to listen, with a header of each version.

const onLinux = { skip: process.platform !== 'linux' && 'not Linux' }
const headers = goodHeaders.filter(({ name }) => name === 'v1 TCP4' || name === 'v2 TCP over IPv6')
const program = join(__dirname, 'worker.js')
const bad = badHeaders.find(({ name }) => name === 'HTTP/1')!.bytes

function same (t: Test, answer: Answer, header: typeof goodHeaders[number], peer: string): void {
  t.match(answer, {
    address: header.source?.[0],
    port: header.source?.[1],
    source: 'proxy-protocol',
    trust: 'trusted',
    transportPeer: { address: peer },
    proxyProtocol: { version: header.version, destination: { address: header.destination?.[0] } }
  }, header.name)
}

async function checkAll (t: Test, to: { host: string, port: number }, localAddress: string): Promise<void> {
  for (const header of headers) {
    for (const way of ways.slice(1)) {
      same(t, await askHttp(() => connect({ ...to, localAddress }), { header: header.bytes, way }) as Answer, header, localAddress)
    }
  }
  t.equal(await askHttp(() => connect({ ...to, localAddress })), 'reset', 'without a header')
  t.equal(await askHttp(() => connect({ ...to, localAddress }), { header: bad }), 'reset', 'with another beginning')
}

t.test("both servers of listen({ host: 'localhost' })", { skip: onLinux.skip || noIPv6 }, async (t) => {
  bothLocalhosts(t)
  const { app } = await serve(t, 'http', { options: { trustedPeers: [PEER, '::1'] }, listen: { host: 'localhost', port: 0 } })
  const { port } = app.server.address() as AddressInfo
  for (const [host, localAddress] of [['127.0.0.1', PEER], ['::1', '::1']] as const) await checkAll(t, { host, port }, localAddress)
  t.equal(app.realIp.stats().connections, 16)
})

t.test('two applications in one process, with other policies', onLinux, async (t) => {
  const one = await serve(t, 'http')
  const other = await serve(t, 'http', { options: { trustedPeers: ['127.0.0.8'], untrusted: 'reject' } })
  const plain = Fastify()
  plain.get('/', () => 'here')
  t.teardown(() => plain.close())
  await plain.listen({ host: '127.0.0.1', port: 0 })
  for (const header of headers) {
    same(t, await askHttp(one.connect, { header: header.bytes }) as Answer, header, PEER)
    t.equal(await askHttp(other.connect, { header: header.bytes }), 'reset', 'not its peer')
    const { port } = other.app.server.address() as AddressInfo
    const listed = () => connect({ host: '127.0.0.1', port, localAddress: '127.0.0.8' })
    same(t, await askHttp(listed, { header: header.bytes }) as Answer, header, '127.0.0.8')
    const third = (plain.server.address() as AddressInfo).port
    t.equal(await askHttp(() => connect(third, '127.0.0.1'), { header: header.bytes }), 400, 'without the plugin')
  }
})

t.test('listen({ fd })', onLinux, async (t) => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const child = spawn(process.execPath, [program], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc', listeningFdOf(server)],
    env: { ...process.env, FASTIFY_REAL_IP_LISTEN: JSON.stringify({ fd: 4 }) }
  })
  t.teardown(async () => {
    child.send('end')
    await once(child, 'exit')
  })
  await once(child, 'message')
  // Now it is the child's alone.
  server.close()
  await checkElsewhere(t, port)
})

/** Servers of other processes, which turn while others are asked. Which of them answered. */
async function checkElsewhere (t: Test, port: number): Promise<Set<unknown>> {
  const workers = new Set<unknown>()
  const open = () => connect({ host: '127.0.0.1', port, localAddress: PEER })
  const answers: Answer[] = []
  for (const header of headers) {
    const ask = async () => await askHttp(open, { header: header.bytes }) as Answer
    for (let round = 0; round < 4; round++) answers.push(await ask())
    const pieces = open()
    const answer = new Promise<string>((resolve) => pieces.once('data', (part: Buffer) => resolve(part.toString())))
    for (const piece of [header.bytes.subarray(0, 9), header.bytes.subarray(9), Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')]) {
      pieces.write(piece)
      for (let round = 0; round < 4; round++) answers.push(await ask())
    }
    const text = await answer
    answers.push(JSON.parse(text.slice(text.indexOf('\r\n\r\n'))))
    for (const one of answers.splice(0, answers.length)) {
      same(t, one, header, PEER)
      workers.add(one.worker)
    }
  }
  t.equal(await askHttp(open), 'reset', 'without a header')
  t.equal(await askHttp(open, { header: bad }), 'reset', 'with another beginning')
  return workers
}

async function startWorkers (t: Test, listen: object): Promise<[Worker, port: number][]> {
  cluster.setupPrimary({ exec: program, args: [] })
  const workers = [1, 2].map(() => cluster.fork({ FASTIFY_REAL_IP_LISTEN: JSON.stringify(listen) }))
  t.teardown(() => Promise.all(workers.map(async (worker) => {
    if (worker.isDead()) return
    worker.send('end')
    await once(worker, 'exit')
  })))
  return await Promise.all(workers.map(async (worker) => [worker, (await once(worker, 'message'))[0] as number] as [Worker, number]))
}

t.test('round-robin cluster workers', onLinux, async (t) => {
  const [[, port]] = await startWorkers(t, { host: '127.0.0.1', port: 0 }) as [[Worker, number]]
  t.equal((await checkElsewhere(t, port)).size, 2, 'both workers')
})

const [major, minor] = process.versions.node.split('.').map(Number) as [number, number]
const hasReusePort = major > 22 || (major === 22 && minor >= 12)

t.test('cluster workers with reusePort: true', { skip: onLinux.skip || (!hasReusePort && 'Node.js 22.12') }, async (t) => {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  await startWorkers(t, { host: '127.0.0.1', port, reusePort: true })
  t.ok((await checkElsewhere(t, port)).size > 0)
})
