import http from 'node:http'
import type { AddressInfo } from 'node:net'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import realIp, { type FastifyRealIpOptions, type RealAddress } from 'fastify-real-ip'
import { Owners, type Owner } from '../../lib/http/owners'
import { PeerSearch } from '../../lib/kernel/peer-search'
import { holdSearches } from '../kernel/held-searches'
import { askOnce, kinds } from '../kinds'

// A server that is restarted in place, as @fastify/restartable does it: a new application is made on the server of the old
// one, its listen() calls back at once, and only then the old one is closed, which must not close the server.

const onLinux = { skip: process.platform !== 'linux' && 'not Linux' }
const plain = kinds[0]!
const BALANCER = '127.0.0.41'
const OTHER = '127.0.0.42'

interface Restartable {
  readonly port: number
  readonly server: http.Server
  /** Replaces the application; rejects, and keeps the old one, where the new one cannot be made or does not start. */
  restart (options: FastifyRealIpOptions, prepare?: (app: FastifyInstance) => void): Promise<FastifyInstance>
  /** Closes the application that serves, and with it the server. */
  close (): Promise<void>
  readonly app: FastifyInstance
}

async function start (t: Test, options: FastifyRealIpOptions): Promise<Restartable> {
  let isRestarting = false
  let handler: http.RequestListener = () => {}

  async function create (options: FastifyRealIpOptions, existing?: http.Server, prepare: (app: FastifyInstance) => void = () => {}): Promise<FastifyInstance> {
    const app = Fastify({
      forceCloseConnections: true,
      ...(existing && {
        serverFactory (next: http.RequestListener) {
          handler = next
          return existing
        }
      })
    })
    prepare(app)
    try {
      await app.register(realIp, options)
      app.get('/', (request) => request.realAddress)
      await app.ready()
    } catch (error) {
      await closeOnly(app)
      throw error
    }
    return app
  }

  /** Closes an application and leaves the server alone. */
  async function closeOnly (app: FastifyInstance): Promise<void> {
    isRestarting = true
    await app.close()
    isRestarting = false
  }

  let app = await create(options)
  const { server } = app
  const { listen, close, closeAllConnections, closeIdleConnections } = server
  Object.assign(server, {
    listen (...args: unknown[]) {
      if (!server.listening) return Reflect.apply(listen, server, args)
      // Fastify waits for one or the other.
      const called = args.at(-1)
      if (typeof called === 'function') called()
      else server.emit('listening')
      return server
    },
    close (called: () => void) { return isRestarting ? called() : close.call(server, called) },
    closeAllConnections () { if (!isRestarting) closeAllConnections.call(server) },
    closeIdleConnections () { if (!isRestarting) closeIdleConnections.call(server) }
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = server.address() as AddressInfo
  t.teardown(() => app.close())

  return {
    port,
    server,
    get app () { return app },
    async restart (options, prepare) {
      const requestListeners = server.listeners('request') as http.RequestListener[]
      const next = await create(options, server, prepare)
      try {
        await next.listen({ port, host: '127.0.0.1' })
      } catch (error) {
        await closeOnly(next)
        throw error
      }
      server.on('request', handler)
      for (const listener of requestListeners) server.removeListener('request', listener)
      const old = app
      app = next
      await closeOnly(old)
      return next
    },
    async close () { await app.close() }
  }
}

const ask = (port: number, localAddress: string) => askOnce(plain, port, localAddress)

const trusts = async (port: number) => [(await ask(port, BALANCER)).trust, (await ask(port, OTHER)).trust]

t.test('the new application decides once it listens, and there is always one', onLinux, async (t) => {
  const served = await start(t, { trustedPeers: [BALANCER], untrusted: 'reject' })
  const { port } = served
  t.same(await trusts(port), ['trusted', 'untrusted'])

  const seen: unknown[] = []
  const second = await served.restart({ trustedPeers: [OTHER] }, (app) => {
    app.addHook('onReady', async () => { seen.push(await trusts(port)) })
  })
  t.same(seen, [['trusted', 'untrusted']], 'the old list, while the new application gets ready')
  t.same(await trusts(port), ['untrusted', 'trusted'])
  t.match(second.realIp.stats().trust, { trusted: 1, untrusted: 1 })

  const third = await served.restart({ trustedPeers: [] })
  t.same(await trusts(port), ['untrusted', 'untrusted'])
  third.realIp.setTrustedPeers([BALANCER, OTHER])
  t.same(await trusts(port), ['trusted', 'trusted'])
  await served.close()
  t.notOk(served.server.listening)
  t.notOk(Object.hasOwn(served.server, 'emit'), 'nothing is left behind')
})

t.test('a hook of the new application that takes its time leaves no gap', onLinux, async (t) => {
  const served = await start(t, { trustedPeers: [BALANCER] })
  const { port } = served
  let go!: () => void
  const slow = new Promise<void>((resolve) => { go = resolve })
  // Fastify waits for no onListen hook, and the old application is closed in the meantime.
  const next = await served.restart({ trustedPeers: [OTHER] }, (app) => { app.addHook('onListen', () => slow) })
  t.same(await trusts(port), ['untrusted', 'trusted'])
  go()
  await new Promise((resolve) => setImmediate(resolve))
  t.same(await trusts(port), ['untrusted', 'trusted'])
  t.match(next.realIp.stats(), { connections: 4 })
})

t.test('connections that live on have the answer of the list that holds', onLinux, async (t) => {
  const served = await start(t, { trustedPeers: [BALANCER] })
  const client = await plain.connect(served.port, { localAddress: BALANCER })
  t.match(await client.get('/'), { address: BALANCER, trust: 'trusted', transportPeer: { port: client.localPort } })
  await served.restart({ trustedPeers: [OTHER], missing: 'reject' })
  t.match(await client.get('/'), { address: BALANCER, trust: 'untrusted', transportPeer: { port: client.localPort } })
  await client.close()
  t.equal(await ask(served.port, OTHER), 'reset')
})

t.test('a connection without a claim, under an application without a policy: the source is the transport peer', onLinux, async (t) => {
  const served = await start(t, { trustedPeers: [BALANCER], sources: ['vtoa'] })
  const client = await plain.connect(served.port, { localAddress: BALANCER })
  t.match(await client.get('/'), { address: BALANCER, source: 'transport-peer', trust: 'trusted' })
  const asked: RealAddress[] = []
  await served.restart({
    admit (address) {
      asked.push(address)
      return true
    }
  })
  t.match(await client.get('/'), { address: BALANCER, source: 'transport-peer', trust: 'unchecked' })
  t.match(asked, [{ source: 'transport-peer' }])
  await client.close()
})

t.test('a server is prepared for each of its applications, whoever registered first', onLinux, async (t) => {
  const first = Fastify()
  await first.register(realIp)
  const app = Fastify({
    forceCloseConnections: true,
    serverFactory (handler) {
      first.server.on('request', handler)
      return first.server as http.Server
    }
  })
  t.teardown(() => app.close())
  await app.register(realIp, { trustedPeers: [BALANCER] })
  app.get('/', (request) => request.realAddress)
  first.server.removeAllListeners('request')
  first.server.on('request', app.routing)
  const searches = t.capture(PeerSearch.prototype, 'ask', PeerSearch.prototype.ask)
  await app.listen({ port: 0, host: '127.0.0.1' })
  const { port } = app.server.address() as AddressInfo
  t.same(await trusts(port), ['trusted', 'untrusted'])
  t.same(searches(), [], 'the SYN names the sender')
})

t.test('a connection that was accepted without a policy, and is emitted again under one', onLinux, async (t) => {
  const served = await start(t, {})
  const accepted: unknown[] = []
  served.server.on('connection', (socket) => { accepted.push(socket) })
  const client = await plain.connect(served.port, { localAddress: BALANCER })
  client.socket.on('error', () => {})
  t.match(await client.get('/'), { trust: 'unchecked' })
  await served.restart({ trustedPeers: [BALANCER], unverified: 'reject' })
  const closed = new Promise((resolve) => { client.socket.once('close', resolve) })
  served.server.emit('connection', accepted[0])
  t.equal(accepted.length, 1, 'what was found without a policy is no pass')
  await closed
})

t.test('a connection that is emitted again, and then has a request: the new application asks admit once', onLinux, async (t) => {
  const served = await start(t, {})
  const { server } = served
  const accepted: unknown[] = []
  server.on('connection', (socket) => { accepted.push(socket) })
  const client = await plain.connect(served.port, { localAddress: BALANCER })
  t.match(await client.get('/'), { address: BALANCER, trust: 'unchecked' })
  const asked: RealAddress[] = []
  await served.restart({
    admit (address) {
      asked.push(address)
      return true
    }
  })
  // HTTP already reads from it.
  const listeners = server.listeners('connection') as Array<(socket: unknown) => void>
  const again: unknown[] = []
  server.removeAllListeners('connection').on('connection', (socket) => { again.push(socket) })
  server.emit('connection', accepted[0])
  server.removeAllListeners('connection')
  for (const listener of listeners) server.on('connection', listener)
  t.same([again.length, asked.length], [1, 1])
  t.match(await client.get('/'), { address: BALANCER, trust: 'unchecked' })
  t.match(asked, [{ address: BALANCER, port: client.localPort, trust: 'unchecked' }])
  t.equal(asked.length, 1)
  await client.close()
})

t.test('a restart that fails leaves the old application in force', onLinux, async (t) => {
  const served = await start(t, { trustedPeers: [BALANCER] })
  const { port, server } = served
  const listeners = server.listenerCount('request')
  await t.rejects(served.restart({ trustedPeers: ['nonsense'] }), { code: 'FST_REAL_IP_INVALID_OPTION' })
  t.same(await trusts(port), ['trusted', 'untrusted'])
  await t.rejects(served.restart({ trustedPeers: [OTHER] }, (app) => {
    app.addHook('onReady', async () => { throw new Error('no database') })
  }), /no database/)
  t.same(await trusts(port), ['trusted', 'untrusted'])
  t.equal(server.listenerCount('request'), listeners)
  t.ok(server.listening)

  await served.restart({ trustedPeers: [OTHER] })
  t.same(await trusts(port), ['untrusted', 'trusted'])
})

t.test('the policy falls back to the old application where the new one closes', onLinux, async (t) => {
  const served = await start(t, { trustedPeers: [BALANCER] })
  const { port, server } = served
  const next = Fastify({ serverFactory: () => server })
  await next.register(realIp, { trustedPeers: [OTHER] })
  await next.listen({ port, host: '127.0.0.1' })
  // The requests are still the old application's, the connections are counted by who decides.
  await trusts(port)
  t.match(next.realIp.stats(), { connections: 2, trust: { trusted: 1, untrusted: 1 } })
  const before = next.realIp.stats().connections
  const { close } = server
  server.close = (called) => {
    (called as () => void)()
    return server
  }
  await next.close()
  server.close = close
  const own = served.app.realIp.stats().connections
  t.same(await trusts(port), ['trusted', 'untrusted'])
  t.equal(next.realIp.stats().connections, before)
  t.equal(served.app.realIp.stats().connections, own + 2)
})

t.test('what is held outlives the old application, and ends with the last', onLinux, async (t) => {
  const served = await start(t, { trustedPeers: [BALANCER] })
  const searches = holdSearches(t)
  const first = ask(served.port, BALANCER)
  await searches.waiting()
  await served.restart({ trustedPeers: [OTHER] })
  searches.release()
  t.match(await first, { address: BALANCER, trust: 'untrusted' }, 'decided by who decides now')

  const held = ask(served.port, BALANCER)
  await searches.waiting()
  await served.close()
  t.equal(await held, 'reset')
})

t.test('a new application that becomes ready after the old one has closed is followed', onLinux, async (t) => {
  const first = Fastify({ forceCloseConnections: true })
  await first.register(realIp, { trustedPeers: [OTHER] })
  await first.listen({ port: 0, host: '127.0.0.1' })
  const { server } = first
  const next = Fastify({
    forceCloseConnections: true,
    serverFactory (handler) {
      server.removeAllListeners('request').on('request', handler)
      return server
    }
  })
  t.teardown(() => next.close())
  await next.register(realIp, { trustedPeers: [BALANCER] })
  next.get('/', (request) => request.realAddress)
  await first.close()
  await next.listen({ port: 0, host: '127.0.0.1' })
  const { port } = server.address() as AddressInfo
  t.same(await trusts(port), ['trusted', 'untrusted'])
  const searches = holdSearches(t)
  const held = ask(port, BALANCER)
  await searches.waiting()
  searches.release()
  t.match(await held, { address: BALANCER, trust: 'trusted' })
  t.equal(next.realIp.stats().connections, 3)
})

t.test('other options within one application are an error all the same', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(realIp, { sources: ['getpeername'] })
  await t.rejects(async () => await app.register(async (child) => { await child.register(realIp, { sources: ['vtoa'] }) }), { code: 'FST_REAL_IP_ALREADY_REGISTERED' })
})

t.test('who failed before it was ready does not serve', async (t) => {
  const [a, b, c] = [{}, {}, {}] as [Owner, Owner, Owner]
  const owners = new Owners()
  for (const owner of [a, b, c]) owners.add(owner)
  t.ok(owners.servesAlone(a), 'nobody is ready yet')
  owners.setReady(a)
  t.ok(owners.servesAlone(a))
  t.notOk(owners.servesAlone(b))
  owners.setReady(c)
  t.notOk(owners.servesAlone(a))
  t.notOk(owners.remove(a))
  t.ok(owners.servesAlone(c))
})

t.test('the last of the stack decides; the last that is left stays', async (t) => {
  const [a, b, c] = [{}, {}, {}] as [Owner, Owner, Owner]
  const owners = new Owners()
  t.ok(owners.isEmpty)
  for (const owner of [a, b]) {
    owners.add(owner)
    owners.put(owner)
  }
  t.equal(owners.current, b)
  owners.put(a)
  t.equal(owners.current, b, 'once is enough')
  t.notOk(owners.remove(c), 'one that was never put')
  t.notOk(owners.remove(a), 'the old one goes first')
  t.equal(owners.current, b)
  t.ok(owners.remove(b), 'no other is left')
  t.equal(owners.current, b)
  owners.add(c)
  t.equal(owners.current, b)
  owners.put(c)
  t.notOk(owners.remove(c))
  t.equal(owners.current, b, 'back again')
  owners.add(a)
  t.notOk(owners.remove(b), 'another is on its way')
  t.equal(owners.current, a, 'whose turn it is, though it has not said so yet')
  t.ok(owners.remove(a))
  t.equal(owners.current, a, 'for what comes late')
})

t.test('one that has not said so yet does not decide while others do', async (t) => {
  const [a, b, c] = [{}, {}, {}] as [Owner, Owner, Owner]
  const owners = new Owners()
  for (const owner of [a, b, c]) owners.add(owner)
  for (const owner of [a, b]) owners.put(owner)
  t.notOk(owners.remove(a))
  t.equal(owners.current, b)
  t.notOk(owners.remove(c))
  t.notOk(owners.remove(c), 'one that is gone is not the last')
  t.ok(owners.remove(b))
})

t.test('all are asked in turn until one has an answer', async (t) => {
  const [a, b, c] = [{}, {}, {}] as [Owner, Owner, Owner]
  const owners = new Owners()
  for (const owner of [a, b, c]) owners.add(owner)
  const asked: Owner[] = []
  const answers = new Map<Owner, string>([[b, 'b'], [c, 'c']])
  const ask = (owner: Owner) => {
    asked.push(owner)
    return answers.get(owner)
  }
  t.equal(owners.first(ask), 'b')
  t.same(asked.map((owner) => [a, b, c].indexOf(owner)), [0, 1])
  t.equal(owners.first(() => undefined), undefined)
})
