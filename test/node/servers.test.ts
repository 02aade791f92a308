import t, { type Test } from 'tap'
import { fork } from 'node:child_process'
import cluster from 'node:cluster'
import { once, type EventEmitter } from 'node:events'
import http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import path from 'node:path'
import { duplexPair } from '../duplex-pair'
import { Worker } from 'node:worker_threads'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance } from 'fastify'
import realIp from 'fastify-real-ip'
import type { RealAddress } from 'fastify-real-ip'
import WebSocket from 'ws'
import { bothLocalhosts, CLIENT, kinds, listen, noIPv6, oneLoopback } from '../kinds'

const linux = process.platform === 'linux'
const kernel = linux ? 'getpeername' : 'peer'
const plain = kinds[0]!
const program = path.join(__dirname, '../programs/server.js')

async function seenBy (port: number, localAddress = CLIENT): Promise<[seen: RealAddress, localPort: number]> {
  const client = await plain.connect(port, { localAddress })
  const seen = await client.get('/')
  await client.close()
  return [seen, client.localPort]
}

async function app (options: object = {}) {
  const app = Fastify(options)
  await app.register(realIp)
  app.get('/', (request) => request.realAddress)
  return app
}

for (const kind of kinds) {
  t.test(`${kind.name}: the second server of listen({ host: 'localhost' })`, { skip: noIPv6 }, async (t) => {
    bothLocalhosts(t)
    const app = kind.create()
    await app.register(realIp)
    app.get('/', (request) => request.realAddress)
    t.teardown(() => app.close())
    const port = await listen(app, { host: 'localhost' })
    for (const host of ['127.0.0.1', '::1']) {
      const client = await kind.connect(port, { host })
      t.match(await client.get('/'), {
        address: host, port: client.localPort, family: host === '::1' ? 'IPv6' : 'IPv4', source: kernel
      })
      await client.close()
    }
    await app.close()
    t.equal(app.server.listenerCount('connection'), kind.create().server.listenerCount('connection'))
  })
}

t.test("servers of listen({ host: 'localhost' }) are known whoever else listens to requests", { skip: noIPv6 || (!linux && 'not Linux') }, async (t) => {
  bothLocalhosts(t)
  const prepend = ({ server }: FastifyInstance) => {
    for (let n = 0; n < 2; n++) server.prependListener('request', () => {})
  }
  for (const when of ['before', 'after', 'both'] as const) {
    for (const kind of kinds) {
      const app = kind.create()
      if (when !== 'after') prepend(app)
      await app.register(realIp, { trustedPeers: ['loopback'], unverified: 'reject' })
      if (when !== 'before') prepend(app)
      app.get('/', (request) => request.realAddress)
      const port = await listen(app, { host: 'localhost' })
      for (const host of ['127.0.0.1', '::1']) {
        const client = await kind.connect(port, { host })
        t.match(await client.get('/'), { address: host, port: client.localPort, trust: 'trusted' }, `${kind.name}, ${when}`)
        await client.close()
      }
      await app.close()
    }
  }
})

t.test('the own emit of a server passes on what it is given, through whatever the prototype has then', async (t) => {
  const server = await app({ trustProxy: false })
  t.teardown(() => server.close())
  const { server: emitter } = server
  const seen: unknown[][] = []
  emitter.on('x' as 'request', (...args: unknown[]) => { seen.push(args) })
  const emit = emitter.emit.bind(emitter) as (name: string, ...args: unknown[]) => boolean
  for (let n = 0; n < 6; n++) t.ok(emit('x', ...Array.from({ length: n }, (_, i) => i)))
  t.same(seen, [[], [0], [0, 1], [0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3, 4]])
  t.notOk(emit('nobody listens'))
  t.notOk(Object.keys(emitter).includes('emit'))

  // Instrumentation patches the prototype at any time.
  const { prototype } = http.Server
  const patched: string[] = []
  prototype.emit = function (this: unknown, name: string, ...args: unknown[]) {
    patched.push(name)
    return (net.Server.prototype.emit as (...args: unknown[]) => boolean).call(this, name, ...args)
  }
  t.teardown(() => { delete (prototype as { emit?: unknown }).emit })
  const [seenAddress, port] = await seenBy(await listen(server))
  t.match(seenAddress, { address: CLIENT, port, source: kernel })
  t.ok(patched.includes('connection') && patched.includes('request'), patched.join())
})

t.test('whoever lays an emit of its own over that is called, and calls it, also when the plugin has gone', async (t) => {
  const server = await app()
  const { server: emitter } = server
  const own = emitter.emit
  const names: string[] = []
  emitter.emit = function (this: http.Server, name: string, ...args: unknown[]) {
    names.push(name)
    return (own as (...args: unknown[]) => boolean).call(this, name, ...args)
  } as typeof own
  const [seen, port] = await seenBy(await listen(server))
  t.match(seen, { address: CLIENT, port, source: kernel })
  t.ok(names.includes('connection'))
  await server.close()
  t.not(emitter.emit, own)
  let heard = 0
  emitter.on('x' as 'request', () => { heard++ })
  ;(emitter as EventEmitter).emit('x')
  t.equal(heard, 1)

  const before = http.createServer()
  const theirs = before.emit.bind(before)
  before.emit = theirs as typeof before.emit
  const second = await app({ serverFactory: (handler: http.RequestListener) => before.on('request', handler) })
  t.not(before.emit, theirs)
  await second.close()
  t.equal(before.emit, theirs, 'what was there before is there again')
})

t.test('dual-stack: an IPv4 client of a [::] listener has an IPv4 address', { skip: noIPv6 }, async (t) => {
  const server = await app()
  t.teardown(() => server.close())
  const [seen, port] = await seenBy(await listen(server, { host: '::' }))
  t.match(seen, { address: CLIENT, port, family: 'IPv4', source: kernel })
})

t.test('listen({ fd }): a descriptor that the parent process listens on', { skip: !linux && 'not Linux' }, async (t) => {
  const listener = net.createServer().listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const child = fork(program, [JSON.stringify({ fd: 4 })], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc', (listener as any)._handle.fd]
  })
  await once(child, 'message')
  const { port } = listener.address() as AddressInfo
  // The parent must not accept what is meant for the child.
  listener.close()
  const [seen, localPort] = await seenBy(port)
  t.match(seen, { address: CLIENT, port: localPort, source: kernel })
  child.send('end')
  await once(child, 'exit')
})

t.test('node:cluster: a worker whose listening socket is the primary\'s', async (t) => {
  cluster.setupPrimary({ exec: program, args: [] })
  const workers = [cluster.fork({ PORT: 0 }), cluster.fork({ PORT: 0 })]
  const addresses = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0]))
  for (let n = 0; n < 4; n++) {
    const [seen, localPort] = await seenBy(addresses[0].port)
    t.match(seen, { address: CLIENT, port: localPort, source: kernel })
  }
  await Promise.all(workers.map((worker) => {
    worker.send('end')
    return once(worker, 'exit')
  }))
})

t.test('worker threads: each with calls and memory of its own', { skip: oneLoopback }, async (t) => {
  const workers = Array.from({ length: 3 }, () => new Worker(program, { workerData: 'a thread' }))
  const ports = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0].port))
  const answers = await Promise.all(ports.flatMap((port) =>
    Array.from({ length: 20 }, async (_, n) => [n, ...await seenBy(port, `127.0.1.${n + 1}`)] as const)))
  for (const [n, seen, localPort] of answers) {
    t.match(seen, { address: `127.0.1.${n + 1}`, port: localPort, source: kernel })
  }
  await Promise.all(workers.map((worker) => {
    worker.postMessage('end')
    return once(worker, 'exit')
  }))
})

t.test('serverFactory', async (t) => {
  const server = await app({ serverFactory: (handler: http.RequestListener) => http.createServer((req, res) => handler(req, res)) })
  t.teardown(() => server.close())
  const [seen, port] = await seenBy(await listen(server))
  t.match(seen, { address: CLIENT, port, source: kernel })
})

t.test('several servers with the plugin in one process keep to their own connections', { skip: oneLoopback }, async (t) => {
  const [a, b] = [await app(), await app()]
  t.teardown(() => Promise.all([a.close(), b.close()]))
  const [seenA, portA] = await seenBy(await listen(a), '127.0.0.81')
  const [seenB, portB] = await seenBy(await listen(b), '127.0.0.82')
  t.match(seenA, { address: '127.0.0.81', port: portA, source: kernel })
  t.match(seenB, { address: '127.0.0.82', port: portB, source: kernel })

  let socket: net.Socket | undefined
  a.server.once('connection', (s) => { socket = s })
  const client = await plain.connect((a.server.address() as AddressInfo).port, { localAddress: '127.0.0.83' })
  await client.get('/')
  t.match(a.realIp.lookup(socket!), { address: '127.0.0.83', source: kernel })
  t.match(b.realIp.lookup(socket!), { address: '127.0.0.83', source: 'peer', reason: 'unobserved' })
  await client.close()
})

t.test('WebSocket upgrades', async (t) => {
  const server = Fastify()
  await server.register(realIp)
  await server.register(websocket)
  server.get('/', { websocket: true }, (socket, request) => {
    socket.on('message', () => socket.send(JSON.stringify(request.realAddress)))
  })
  t.teardown(() => server.close())
  const client = new WebSocket(`ws://127.0.0.1:${await listen(server)}/`, { localAddress: CLIENT })
  await once(client, 'open')
  client.send('who am I?')
  const [message] = await once(client, 'message')
  t.match(JSON.parse(String(message)), { address: CLIENT, source: kernel })
  client.close()
  await once(client, 'close')
})

t.test("a raw 'upgrade' handler has lookup()", async (t) => {
  const server = await app()
  const answers: RealAddress[] = []
  server.server.on('upgrade', (request, socket) => {
    answers.push(server.realIp.lookup(request), server.realIp.lookup(socket))
    socket.end()
  })
  t.teardown(() => server.close())
  const socket = net.connect({ port: await listen(server), host: '127.0.0.1', localAddress: CLIENT })
  socket.end('GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n').resume()
  await once(socket, 'close')
  t.match(answers, [{ address: CLIENT, source: kernel }, { address: CLIENT, source: kernel }])
})

t.test("a 'clientError' handler has lookup()", async (t) => {
  let answer: RealAddress | undefined
  const server = await app({
    clientErrorHandler (_error: Error, socket: net.Socket) {
      answer = server.realIp.lookup(socket)
      socket.destroy()
    }
  })
  t.teardown(() => server.close())
  const socket = net.connect({ port: await listen(server), host: '127.0.0.1', localAddress: CLIENT })
  socket.on('error', () => {})
  socket.end('nonsense\r\n\r\n').resume()
  await new Promise((resolve) => socket.once('close', resolve))
  t.match(answer, { address: CLIENT, source: kernel })
})

t.test('genReqId and child loggers have lookup()', async (t) => {
  const server: any = Fastify({ genReqId: (raw) => server.realIp?.lookup(raw).address ?? 'none' })
  await server.register(realIp)
  server.get('/', (request: any) => [request.id])
  t.teardown(() => server.close())
  const client = await plain.connect(await listen(server), { localAddress: CLIENT })
  t.same(await client.get('/'), [CLIENT])
  await client.close()
})

t.test('server-sent events: a stream that goes on after its handler', async (t) => {
  const server = Fastify()
  await server.register(realIp)
  let event!: () => void
  server.get('/', (request, reply) => {
    reply.hijack()
    reply.raw.writeHead(200, { 'content-type': 'text/event-stream' })
    reply.raw.flushHeaders()
    event = () => reply.raw.end(`data: ${request.realIp}\n\n`)
  })
  t.teardown(() => server.close())
  const request = http.get({ port: await listen(server), host: '127.0.0.1', localAddress: CLIENT })
  const [response] = await once(request, 'response')
  event()
  let body = ''
  for await (const chunk of response) body += chunk
  t.equal(body, `data: ${CLIENT}\n\n`)
})

t.test('pipelined requests', async (t) => {
  const server = await app()
  t.teardown(() => server.close())
  const socket = net.connect({ port: await listen(server), host: '127.0.0.1', localAddress: CLIENT })
  socket.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n'.repeat(5) + 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
  let all = ''
  for await (const chunk of socket) all += chunk
  t.equal(all.split(`\n{"address":"${CLIENT}"`).length - 1, 6)
})

/** The port of another server, which hands its requests to the application. */
async function portBehind (t: Test, server: FastifyInstance): Promise<number> {
  await server.ready()
  const front = http.createServer((req, res) => server.routing(req, res)).listen(0, '127.0.0.1')
  await once(front, 'listening')
  t.teardown(() => {
    front.close()
    return server.close()
  })
  return (front.address() as AddressInfo).port
}

t.test('app.routing() behind another server falls to the peer', async (t) => {
  const server = await app()
  const behind = await portBehind(t, server)
  const [seen, port] = await seenBy(behind)
  t.match(seen, { address: CLIENT, port, source: 'peer', reason: 'unobserved', attempts: [] })
})

t.test('app.routing() behind another server: a request keeps what it began with, also when its socket is gone', async (t) => {
  const server = Fastify()
  await server.register(realIp, { admit: () => true })
  const told = new Promise((resolve) => {
    server.get('/', async (request) => {
      request.raw.socket.destroy()
      await once(request.raw.socket, 'close')
      resolve([request.realIp, request.realAddress.reason])
    })
  })
  const behind = await portBehind(t, server)
  const client = await plain.connect(behind, { localAddress: CLIENT })
  client.socket.on('error', () => {})
  client.get('/').catch(() => {})
  t.same(await told, [CLIENT, 'unobserved'])
})

t.test('an emitted duplex has no address', async (t) => {
  const server = await app()
  await server.ready()
  t.teardown(() => server.close())
  const [ours, theirs] = duplexPair()
  server.server.emit('connection', theirs)
  ours.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
  let all = ''
  for await (const chunk of ours) all += chunk
  t.match(JSON.parse(all.slice(all.indexOf('{'))), { source: 'none', reason: 'no-address', attempts: [] })
})

t.test('an emitted duplex with an address of its own gives that', async (t) => {
  const server = await app()
  await server.ready()
  t.teardown(() => server.close())
  const [, theirs] = duplexPair()
  Object.assign(theirs, { remoteAddress: '::ffff:203.0.113.9', remotePort: 70000 })
  server.server.emit('connection', theirs)
  t.match(server.realIp.lookup(theirs), {
    address: '203.0.113.9', port: undefined, family: 'IPv4', source: 'peer', reason: linux ? 'no-fd' : 'native-unavailable'
  })
  theirs.destroy()
})

t.test('a connection destroyed before the event has no address', async (t) => {
  const server = await app()
  await server.ready()
  t.teardown(() => server.close())
  const socket = new net.Socket()
  socket.destroy()
  server.server.emit('connection', socket)
  t.match(server.realIp.lookup(socket), { address: undefined, source: 'none', reason: 'closed' })
})

t.test('a Unix-domain socket has no address', { skip: process.platform === 'win32' && 'no Unix-domain sockets' }, async (t) => {
  const server = await app()
  const socketPath = path.join(t.testdir(), 's')
  await server.listen({ path: socketPath })
  t.teardown(() => server.close())
  const request = http.get({ socketPath, path: '/' })
  const [response] = await once(request, 'response')
  let body = ''
  for await (const chunk of response) body += chunk
  t.match(JSON.parse(body), { source: 'none', reason: 'no-address', attempts: [] })
})

t.test('inject() gives the injected remote address, never a header', async (t) => {
  const server = await app()
  t.teardown(() => server.close())
  const headers = { 'x-forwarded-for': '198.51.100.1', forwarded: 'for=198.51.100.1' }
  const seen = async (remoteAddress?: string) =>
    (await server.inject({ url: '/', headers, ...(remoteAddress === undefined ? {} : { remoteAddress }) })).json()
  t.same(await seen(), { address: '127.0.0.1', family: 'IPv4', source: 'peer', reason: 'injected', trust: 'unchecked', attempts: [] })
  t.match(await seen('2001:DB8::0:7'), { address: '2001:db8::7', family: 'IPv6', source: 'peer', reason: 'injected' })
  t.same(await seen('nonsense'), { source: 'none', reason: 'no-address', trust: 'unchecked', attempts: [] })
})

t.test('lookup of anything else is none, never a throw', async (t) => {
  const server = await app()
  t.teardown(() => server.close())
  const cycle: any = {}
  cycle.raw = cycle
  const hostile = new Proxy({}, { get () { throw new Error('no') } })
  const injected = { rawHeaders: null, get _lightMyRequest () { return true }, get socket () { throw new Error('no') } }
  for (const anything of [undefined, null, 0, 'x', {}, Object.create(null), () => {}, cycle, hostile, injected, new http.IncomingMessage(null as any)]) {
    t.match(server.realIp.lookup(anything as any), { address: undefined, source: 'none', reason: 'no-address' })
  }
})

t.test('request.ip and socket.remoteAddress stay as they are', async (t) => {
  const server = Fastify()
  await server.register(realIp)
  server.get('/', (request) => [request.ip, request.socket.remoteAddress, request.realIp])
  t.teardown(() => server.close())
  const client = await plain.connect(await listen(server), { localAddress: CLIENT })
  t.same(await client.get('/'), [CLIENT, CLIENT, CLIENT])
  await client.close()
})

t.test('lookup() of what belongs to an HTTP/2 session, a pushed stream say', async (t) => {
  const h2c = kinds.find(({ name }) => name === 'h2c')!
  const server = h2c.create()
  await server.register(realIp)
  server.get('/', (request) => request.realAddress)
  let answer: RealAddress | undefined
  server.server.on('session', (session: object) => { answer = server.realIp.lookup({ session } as never) })
  t.teardown(() => server.close())
  const client = await h2c.connect(await listen(server), { localAddress: CLIENT })
  await client.get('/')
  t.match(answer, { address: CLIENT, port: client.localPort, source: kernel })
  await client.close()
})
