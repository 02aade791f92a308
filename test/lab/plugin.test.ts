import { type ChildProcess, fork } from 'node:child_process'
import cluster from 'node:cluster'
import { once } from 'node:events'
import http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import path from 'node:path'
import { Worker } from 'node:worker_threads'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { bothLocalhosts, kinds, listen } from '../kinds'
import { logOf } from '../trust/log'
import { inLab } from './in-lab'
import { derivedAddress, type Oracle, type OracleRun, type OracleTally, type Stamp } from './lab'

const program = path.join(__dirname, '../programs/server.js')
const protocols = ['http', 'https', 'h2c', 'h2'] as const

async function serve (t: Test, app: FastifyInstance = Fastify(), options: FastifyRealIpOptions = {}, listenOptions = {}): Promise<number> {
  await app.register(realIp, options)
  app.get('/whoami', ({ realAddress: { address, port, source } }) => ({ realIp: address, port, source }))
  t.teardown(() => app.close())
  return await listen(app, listenOptions)
}

const kindOf = (protocol: string) => kinds.find(({ name }) => name === protocol)!

function allRight (t: Test, tally: OracleTally, count: number, what: string): void {
  const { right, wrong, errors } = tally
  t.same({ right, wrong, errors }, { right: count, wrong: 0, errors: 0 },
    what + (right === count ? '' : ` ${JSON.stringify(tally.samples[0] ?? tally.messages[0])}`))
}

inLab('what a balancer stamps', async (t, lab) => {
  const client = await lab.client()
  const oracle = client.oracle()
  t.teardown(() => oracle.close())
  lab.module.start()

  const claims: Array<[what: string, stamp: Stamp | null, expect: Partial<OracleRun>]> = [
    ['254/8 on SYN and ACK', {}, { source: 'vtoa' }],
    ['254/8 on the ACK only', { on: ['ack'] }, { source: 'vtoa' }],
    ['253/20 on SYN and ACK', { derive: 'v6' }, { source: 'vtoa' }],
    ['253/20 on the ACK only', { derive: 'v6', on: ['ack'] }, { source: 'vtoa' }],
    ['one address for all', { address: '198.51.100.23', port: 443 }, { source: 'vtoa' }],
    ['one IPv6 address for all', { address: '2001:db8::23', port: 443 }, { source: 'vtoa' }],
    ['an IPv4-mapped address in 253/20', { address: '::ffff:198.51.100.23', port: 9 }, { source: 'vtoa', expect: { address: '198.51.100.23', port: 9 } }],
    ['no TOA', null, { source: 'getpeername', expect: 'peer' }],
    ['an option too short', { length: 7 }, { source: 'getpeername', expect: 'peer' }],
    ['an option too long', { length: 10 }, { source: 'getpeername', expect: 'peer' }],
    ['253 with the length of IPv4', { kind: 253, length: 8 }, { source: 'getpeername', expect: 'peer' }],
    ['another kind', { kind: 200, length: 8 }, { source: 'getpeername', expect: 'peer' }]
  ]
  for (const host of ['127.0.0.1', '::1']) {
    const port = await serve(t, Fastify(), {}, { host })
    for (const [what, stamp, expect] of claims) {
      client.set(stamp)
      allRight(t, await oracle.run({ host, port, connections: 40, requests: 2, ...expect }), 80, `${what}, ${host}`)
    }
  }

  // A dual-stack listener, by both families.
  const port = await serve(t, Fastify(), {}, { host: '::' })
  for (const host of ['127.0.0.1', '::1']) {
    for (const derive of ['v4', 'v6'] as const) {
      client.set({ derive })
      allRight(t, await oracle.run({ host, port, connections: 40, source: 'vtoa' }), 40, `${derive} on ::, from ${host}`)
    }
  }
})

inLab('the ways a module can answer', async (t, lab) => {
  const client = await lab.client()
  const oracle = client.oracle()
  t.teardown(() => oracle.close())
  const port = await serve(t)
  const ask = (expect: Partial<OracleRun>) => oracle.run({ port, connections: 40, ...expect })

  lab.module.start()
  allRight(t, await ask({ source: 'vtoa' }), 40, 'both')
  lab.module.start({ getpeername: false })
  allRight(t, await ask({ source: 'vtoa' }), 40, 'getsockopt only')
  lab.module.start({ getsockopt: false })
  allRight(t, await ask({ source: 'getpeername' }), 40, 'getpeername only')

  const alone = await serve(t, Fastify(), { sources: ['getpeername'] })
  lab.module.start()
  allRight(t, await oracle.run({ port: alone, connections: 40, source: 'getpeername' }), 40, "sources: ['getpeername']")
  const strict = await serve(t, Fastify(), { sources: ['vtoa'], require: true })
  allRight(t, await oracle.run({ port: strict, connections: 40, source: 'vtoa' }), 40, "sources: ['vtoa'], require: true")

  // Faults of the module's call: whatever it is, there is an address, and it is the connection's own.
  for (const errno of ['EINVAL', 'EPERM', 'EFAULT', 'ENOTSOCK', 'ENOBUFS', 'ESRCH', 'ENOPROTOOPT'] as const) {
    lab.module.start({ getpeername: false })
    lab.module.fault({ errno })
    allRight(t, await ask({ expect: 'peer', source: 'getpeername' }), 40, errno)
  }
  for (const family of [0, 1, 77]) {
    lab.module.fault({ family })
    lab.module.start({ getpeername: false })
    allRight(t, await ask({ expect: 'peer', source: 'getpeername' }), 40, `sa_family ${family}`)
  }
  lab.module.fault()

  lab.module.stop()
  const app = Fastify()
  t.teardown(() => app.close())
  await t.rejects(async () => app.register(realIp, { sources: ['vtoa'], require: true }), {
    code: 'FST_REAL_IP_NATIVE_UNAVAILABLE', message: /no module answers 1348: vtoa is not loaded, or too old/
  })
})

inLab('another program that rewrites getpeername too', async (t, lab) => {
  const client = await lab.client()
  const oracle = client.oracle()
  t.teardown(() => oracle.close())
  lab.module.start()
  const { logger, codes } = logOf()
  const port = await serve(t, Fastify({ loggerInstance: logger }))
  allRight(t, await oracle.run({ port, source: 'vtoa' }), 1, 'both say the same')
  t.notOk(codes.includes('FST_REAL_IP_DISAGREE'))

  lab.module.fault({ namePort: 9 })
  const other = logOf()
  const another = await serve(t, Fastify({ loggerInstance: other.logger }))
  allRight(t, await oracle.run({ port: another, source: 'vtoa', connections: 20 }), 20, 'what vtoa says stands')
  t.equal(other.codes.filter((code) => code === 'FST_REAL_IP_DISAGREE').length, 1)
  lab.module.fault()
})

inLab('started and stopped under load', async (t, lab) => {
  const client = await lab.client()
  const oracle = client.oracle()
  t.teardown(() => oracle.close())
  const app = Fastify()
  await app.register(realIp)
  // Made while the module was there or not, a connection has its claim or its own end; either is of this port alone.
  app.get('/either', ({ realAddress: { address, port } }) => ({ realIp: address === '127.0.0.1' ? derivedAddress(port ?? 0) : address, port }))
  app.get('/whoami', ({ realAddress: { address, port, source } }) => ({ realIp: address, port, source }))
  t.teardown(() => app.close())
  const port = await listen(app)

  const load = oracle.run({ port, connections: 2000, concurrency: 32, path: '/either' })
  let done = false
  void load.then(() => { done = true })
  let turns = 0
  while (!done) {
    turns % 2 === 0 ? lab.module.start() : lab.module.stop()
    turns++
    await Promise.race([once(app.server, 'connection'), load])
  }
  allRight(t, await load, 2000, `through ${turns} starts and stops`)

  // Within two seconds of a start, without a restart, new connections have it.
  lab.module.stop()
  allRight(t, await oracle.run({ port, connections: 5, expect: 'peer' }), 5, 'stopped')
  lab.module.start()
  const started = performance.now()
  let seen = 0
  while (seen === 0 && performance.now() - started < 2000) {
    seen = (await oracle.run({ port, source: 'vtoa' })).right
  }
  t.equal(seen, 1, 'found again')
})

inLab('every kind of server', async (t, lab) => {
  const client = await lab.client()
  const oracle: Oracle = client.oracle()
  t.teardown(() => oracle.close())
  lab.module.start()
  const source = 'vtoa'

  bothLocalhosts(t)

  for (const protocol of protocols) {
    const port = await serve(t, kindOf(protocol).create(), {}, { host: 'localhost' })
    for (const host of ['127.0.0.1', '::1']) {
      allRight(t, await oracle.run({ host, port, protocol, source, connections: 30, requests: 3 }), 90, `${protocol}, localhost's ${host}`)
    }
  }
  const mixed = await serve(t, kindOf('h2-http1').create())
  allRight(t, await oracle.run({ port: mixed, protocol: 'https', source, connections: 30 }), 30, 'HTTP/1.1 of an HTTP/2 server')
  allRight(t, await oracle.run({ port: mixed, protocol: 'h2', source, connections: 30 }), 30, 'HTTP/2 of the same')

  const factory = Fastify({ serverFactory: (handler) => http.createServer((req, res) => { handler(req, res) }) })
  allRight(t, await oracle.run({ port: await serve(t, factory), source, connections: 30 }), 30, 'serverFactory')

  const [one, two] = [await serve(t), await serve(t)]
  const both = await Promise.all([one, two].map((port) => oracle.run({ port, source, connections: 100 })))
  both.forEach((tally) => allRight(t, tally, 100, 'two servers at once'))

  async function ending (child: ChildProcess): Promise<void> {
    child.send('end')
    await once(child, 'exit')
  }
  await t.test('listen({ fd })', async (t) => {
    const listener = net.createServer().listen(0, '127.0.0.1')
    await once(listener, 'listening')
    const child = fork(program, [JSON.stringify({ fd: 4 })], { stdio: ['ignore', 'inherit', 'inherit', 'ipc', (listener as any)._handle.fd] })
    await once(child, 'message')
    const { port } = listener.address() as AddressInfo
    listener.close()
    allRight(t, await oracle.run({ port, source, connections: 30 }), 30, 'a descriptor of the parent')
    await ending(child)
  })
  await t.test('node:cluster', async (t) => {
    cluster.setupPrimary({ exec: program, args: [] })
    const workers = [cluster.fork({ PORT: 0 }), cluster.fork({ PORT: 0 })]
    const [[address]] = await Promise.all(workers.map((worker) => once(worker, 'message'))) as [[AddressInfo]]
    allRight(t, await oracle.run({ port: address.port, source, connections: 60 }), 60, 'two workers')
    await Promise.all(workers.map((worker) => ending(worker.process)))
  })
  await t.test('worker threads', async (t) => {
    const workers = Array.from({ length: 2 }, () => new Worker(program, { workerData: 'a thread' }))
    const ports = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0].port as number))
    const tallies = await Promise.all(ports.map((port) => oracle.run({ port, source, connections: 100 })))
    tallies.forEach((tally) => allRight(t, tally, 100, 'a thread'))
    await Promise.all(workers.map((worker) => {
      worker.postMessage('end')
      return once(worker, 'exit')
    }))
  })
  await t.test('WebSocket and server-sent events', async (t) => {
    const app = Fastify({ forceCloseConnections: true })
    await app.register(websocket)
    const port = await serve(t, app.register(async (app) => {
      app.get('/ws', { websocket: true }, (socket, request) => {
        socket.on('message', () => socket.send(JSON.stringify(request.realAddress)))
      })
      app.get('/sse', (request, reply) => {
        reply.hijack()
        reply.raw.writeHead(200, { 'content-type': 'text/event-stream' })
        reply.raw.end(`data: ${request.realIp}\n\n`)
      })
    }) as unknown as FastifyInstance)
    client.set({ address: '198.51.100.23', port: 4321 })
    const ws = await client.run(process.execPath, ['-e', `
      const socket = new (require(${JSON.stringify(require.resolve('ws'))}))('ws://127.0.0.1:${port}/ws')
      socket.on('open', () => socket.send('who am I?'))
      socket.on('message', (message) => { console.log(String(message)); socket.close() })`])
    t.match(JSON.parse(ws.stdout), { address: '198.51.100.23', port: 4321, source })
    const sse = await client.run(process.execPath, ['-e', `
      require('http').get('http://127.0.0.1:${port}/sse', (response) => response.pipe(process.stdout))`])
    t.equal(sse.stdout, 'data: 198.51.100.23\n\n')
  })
})

inLab('thousands at once, and connections that go away early', async (t, lab) => {
  const client = await lab.client()
  const oracle = client.oracle()
  t.teardown(() => oracle.close())
  lab.module.start()
  const ports = new Map<string, number>()
  for (const protocol of protocols) ports.set(protocol, await serve(t, kindOf(protocol).create({ forceCloseConnections: true })))

  const port = ports.get('http')!
  const many = { port, source: 'vtoa', connections: 4000, concurrency: 256, then: 'keep' } as const
  allRight(t, await oracle.run(many), 4000, 'four thousand open')
  allRight(t, await oracle.again(), 4000, 'asked again')
  t.equal(await oracle.drop({ by: 'reset' }), 4000)

  for (const protocol of protocols) {
    const port = ports.get(protocol)!
    for (const abandon of ['connect', 'tls', 'request'] as const) {
      if (abandon === 'tls' && (protocol === 'http' || protocol === 'h2c')) continue
      // Those that go away free descriptors for those that stay.
      const [left, stayed] = await Promise.all([
        oracle.run({ port, protocol, connections: 150, abandon }),
        oracle.run({ port, protocol, connections: 150, source: 'vtoa', requests: 2 })
      ])
      t.equal(left.abandoned, 150, `${protocol}: reset during ${abandon}`)
      allRight(t, stayed, 300, `${protocol}: those beside them`)
    }
  }
})
