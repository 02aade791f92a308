import { channel } from 'node:diagnostics_channel'
import { EventEmitter, once } from 'node:events'
import http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import tls from 'node:tls'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { loadLibc } from '../../lib/kernel/libc'
import { Remembered } from '../../lib/node/remembered'
import { Judge } from '../../lib/trust/judge'
import { askOnce, cert, CLIENT, key, type Kind, kinds, listen } from '../kinds'

// Ways in which a connection comes to the listeners of a server without being examined, and faults while it is examined:
// nobody gets in by them whom the policy does not let in.

if (process.platform !== 'linux' || typeof loadLibc() === 'string') {
  t.plan(0, 'policies need native calls')
  process.exit()
}

const list: FastifyRealIpOptions = { trustedPeers: [CLIENT] }
const strict: FastifyRealIpOptions = { ...list, unverified: 'reject' }
const plain = kinds[0] as Kind
const secure = kinds[1] as Kind

interface Served {
  readonly app: FastifyInstance
  /** How often the route ran. */
  readonly runs: () => number
}

async function make (t: Test, kind: Kind, options: FastifyRealIpOptions): Promise<Served> {
  const app = kind.create({ forceCloseConnections: true })
  await app.register(realIp, options)
  let runs = 0
  app.get('/', (request) => {
    runs++
    return request.realAddress
  })
  await app.ready()
  t.teardown(() => app.close())
  return { app, runs: () => runs }
}

/** A server that gives each of its connections to a function. */
async function front (t: Test, give: (socket: net.Socket) => void): Promise<number> {
  const server = net.createServer((socket) => {
    socket.on('error', () => {})
    give(socket)
  }).listen(0, '127.0.0.1')
  t.teardown(() => { server.close() })
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

const ask = (kind: Kind, port: number) => askOnce(kind, port, CLIENT)

type Way = (app: FastifyInstance, socket: net.Socket) => void

const ways: Record<string, Way> = {
  'emitted by the prototype' ({ server }, socket) { EventEmitter.prototype.emit.call(server, 'connection', socket) },
  'emitted by the emit of the class' ({ server }, socket) {
    (Object.getPrototypeOf(server) as EventEmitter).emit.call(server, 'connection', socket)
  },
  'emitted after somebody has restored emit' ({ server }, socket) {
    delete (server as { emit?: unknown }).emit
    server.emit('connection', socket)
  },
  'emitted by a name that is an object' ({ server }, socket) { server.emit(Object('connection') as never, socket) },
  'given to each listener' ({ server }, socket) {
    for (const listener of server.listeners('connection')) Reflect.apply(listener, server, [socket])
  }
}

t.test('a connection that was not examined is unverified', async (t) => {
  for (const kind of kinds) {
    for (const [way, give] of Object.entries(ways)) {
      const open = await make(t, kind, list)
      const answer = await ask(kind, await front(t, (socket) => { give(open.app, socket) }))
      t.match(answer, { address: undefined, source: 'none', trust: 'unverified', reason: 'unverified-peer' }, `${kind.name}, ${way}`)
      t.equal(open.app.realIp.stats().connections, 0)
      const closed = await make(t, kind, strict)
      t.equal(await ask(kind, await front(t, (socket) => { give(closed.app, socket) })), 'reset', `${kind.name}, ${way}, rejected`)
      t.equal(closed.runs(), 0)
    }
  }
})

t.test('so is a TLS connection that another server has ended, and a request that another server has read', async (t) => {
  for (const [options, expected] of [[list, { address: undefined, trust: 'unverified' }], [strict, 'reset']] as const) {
    const { app } = await make(t, secure, options)
    const other = tls.createServer({ key, cert }, (socket) => { app.server.emit('secureConnection', socket) }).listen(0, '127.0.0.1')
    t.teardown(() => { other.close() })
    await once(other, 'listening')
    t.match(await ask(secure, (other.address() as AddressInfo).port), expected, "'secureConnection'")

    const { app: routed, runs } = await make(t, plain, options)
    const reader = http.createServer((request, response) => { routed.routing(request, response) }).listen(0, '127.0.0.1')
    t.teardown(() => { reader.close() })
    await once(reader, 'listening')
    t.match(await ask(plain, (reader.address() as AddressInfo).port), expected, 'routing()')
    t.equal(runs(), expected === 'reset' ? 0 : 1)
  }
})

t.test('an emit that others wrap, before the plugin or after it', async (t) => {
  const wrap = (server: { emit: unknown }, seen: unknown[]): void => {
    const { emit } = server
    server.emit = function (this: unknown, ...args: unknown[]) {
      seen.push(args[0])
      return Reflect.apply(emit as () => boolean, this, args)
    }
  }
  for (const when of ['before', 'after'] as const) {
    const seen: unknown[] = []
    const app = plain.create({ forceCloseConnections: true })
    if (when === 'before') wrap(app.server, seen)
    await app.register(realIp, { ...list, missing: 'reject' })
    if (when === 'after') wrap(app.server, seen)
    t.teardown(() => app.close())
    const port = await listen(app)
    let heard = 0
    app.server.on('connection', () => { heard++ })
    t.equal(await ask(plain, port), 'reset', when)
    t.equal(heard, 0)
    t.equal(seen.filter((name) => name === 'connection').length, when === 'before' ? 0 : 1)
    t.ok(seen.includes('listening'))
  }
})

t.test('app.server that is replaced changes nothing', async (t) => {
  const app = plain.create({ forceCloseConnections: true })
  const { server } = app
  await app.register(realIp, { ...list, missing: 'reject' })
  app.server = http.createServer() as typeof server
  t.teardown(() => {
    app.server = server
    return app.close()
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  t.equal(await ask(plain, (server.address() as AddressInfo).port), 'reset')
  t.match(app.realIp.stats(), { connections: 1, rejected: 1 })
})

t.test('a connection that is handed over again is ruled on again, and counted once', async (t) => {
  const { app, runs } = await make(t, plain, { trustedPeers: [], missing: 'reject' })
  let heard = 0
  app.server.on('connection', () => { heard++ })
  const sockets: net.Socket[] = []
  const port = await front(t, (socket) => {
    sockets.push(socket)
    app.server.emit('connection', socket)
  })
  const client = await plain.connect(port, { localAddress: CLIENT })
  client.socket.on('error', () => {})
  t.match(await client.get('/'), { trust: 'untrusted' })
  t.equal(heard, 1)
  app.server.emit('connection', sockets[0]!)
  t.equal(heard, 2, 'allowed as before')
  app.realIp.setTrustedPeers([CLIENT])
  const closed = new Promise((resolve) => { client.socket.once('close', resolve) })
  app.server.emit('connection', sockets[0]!)
  app.server.emit('connection', sockets[0]!)
  t.equal(heard, 2, 'another list refuses it')
  await closed
  app.server.emit('connection', sockets[0]!)
  t.equal(heard, 2)
  t.equal(runs(), 1)
  t.match(app.realIp.stats(), { connections: 1, rejected: 0 })
})

t.test('what cannot be destroyed is refused all the same, each time', async (t) => {
  const { app } = await make(t, plain, strict)
  let heard = 0
  app.server.prependListener('connection', () => { heard++ })
  const failing = () => { throw new Error('cannot be destroyed') }
  for (const connection of [{}, new EventEmitter(), { destroy: failing }, { resetAndDestroy: failing, destroy: failing }, undefined, null, 7]) {
    for (let n = 0; n < 2; n++) app.server.emit('connection', connection as never)
    await setImmediate()
  }
  t.equal(heard, 0)
})

t.test('a fault while a connection is examined lets nobody in', async (t) => {
  const fail = (): never => { throw new Error('a fault') }
  const faults: Array<[string, object, string]> = [
    ['what was found cannot be remembered', Remembered.prototype, 'set'],
    ['what was found cannot be recalled', Remembered.prototype, 'of'],
    ['the judge cannot rule', Judge.prototype, 'rule'],
    ['the judge cannot decide', Judge.prototype, 'decide']
  ]
  for (const [what, prototype, name] of faults) {
    const { app, runs } = await make(t, plain, list)
    let heard = 0
    app.server.on('connection', () => { heard++ })
    const port = await listen(app)
    const { restore } = t.intercept(prototype as Record<string, unknown>, name, { value: fail } as never)
    t.equal(await ask(plain, port), 'reset', what)
    restore()
    t.equal(heard, 0)
    t.match(await ask(plain, port), { trust: 'trusted' }, 'the next one is served')
    t.equal(runs(), 1)
  }
})

t.test('a subscriber that destroys the socket, or throws', async (t) => {
  const subscriber = ({ socket }: { readonly socket: net.Socket }) => { socket.destroy() }
  const connections = channel('fastify-real-ip:connection')
  const { app, runs } = await make(t, plain, list)
  const port = await listen(app)
  connections.subscribe(subscriber as never)
  t.equal(await ask(plain, port), 'reset')
  connections.unsubscribe(subscriber as never)
  t.match(await ask(plain, port), { trust: 'trusted' })
  t.equal(runs(), 1)
})
