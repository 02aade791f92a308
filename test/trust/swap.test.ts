import { once } from 'node:events'
import net from 'node:net'
import websocket from '@fastify/websocket'
import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { kinds, listen } from '../kinds'

// Without a module nobody claims anything: here a connection is no longer allowed when its peer comes to be trusted, and
// 'missing' rejects. test/lab/trust-live.test.ts has the other ways.

const onLinux = { skip: process.platform !== 'linux' && 'not Linux' }
const options: FastifyRealIpOptions = { trustedPeers: [], missing: 'reject' }
const [http] = kinds

/** Asks twice on one connection, between which its peer comes to be trusted: the second time nobody answers. */
async function isClosed (app: FastifyInstance, port: number, path: string, localAddress = '127.0.0.40'): Promise<boolean> {
  const socket = net.connect({ port, host: '127.0.0.1', localAddress }).on('error', () => {})
  const request = `GET ${path} HTTP/1.1\r\nHost: x\r\n\r\n`
  socket.write(request)
  await once(socket, 'data')
  app.realIp.setTrustedPeers([localAddress])
  socket.write(request)
  const closed = await new Promise<boolean>((resolve) => {
    socket.once('data', () => resolve(false))
    socket.once('close', () => resolve(true))
  })
  app.realIp.setTrustedPeers([])
  socket.destroy()
  return closed
}

t.test('realIp is the address of realAddress, also if a hook read it before the list was replaced', onLinux, async (t) => {
  const read: unknown[] = []
  const app = Fastify()
  app.addHook('onRequest', async ({ realAddress }) => {
    read.push(realAddress.address)
    app.realIp.setTrustedPeers(['127.0.0.40'])
  })
  await app.register(realIp, { sources: ['proxy-protocol'], trustedPeers: ['127.0.0.40'] })
  app.get('/', ({ realIp, realAddress }) => {
    read.push(realIp, realAddress.address)
    return ''
  })
  t.teardown(() => app.close())
  const port = await listen(app, { host: '127.0.0.1' })
  const socket = net.connect({ port, host: '127.0.0.1', localAddress: '127.0.0.40' })
  const request = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'
  socket.write(`PROXY TCP4 203.0.113.7 198.51.100.1 51234 443\r\n${request}`)
  await once(socket, 'data')
  t.same(read.splice(0), ['203.0.113.7', '203.0.113.7', '203.0.113.7'])
  app.realIp.setTrustedPeers([])
  socket.write(request)
  await once(socket, 'data')
  t.same(read, ['127.0.0.40', '127.0.0.40', '127.0.0.40'])
  socket.destroy()
})

t.test('a list can be swapped only where one was given, and only for one that is right', async (t) => {
  const bare = Fastify()
  await bare.register(realIp)
  t.teardown(() => bare.close())
  t.throws(() => bare.realIp.setTrustedPeers([]), { code: 'FST_REAL_IP_INVALID_OPTION', message: /only if the plugin was registered with it/ })

  const app = Fastify()
  await app.register(realIp, { trustedPeers: ['10.0.0.0/8'] })
  app.get('/', (request) => [request.realAddress.trust])
  t.teardown(() => app.close())
  const ask = async () => (await app.inject({ url: '/', remoteAddress: '10.0.0.2' })).json()
  for (const wrong of [undefined, null, '10.0.0.0/8', 'ANY', ['10.0.0.1/8'], ['10.0.0.0/8', 'nonsense'], [undefined], {}, 1, true]) {
    t.throws(() => app.realIp.setTrustedPeers(wrong as never), { code: 'FST_REAL_IP_INVALID_OPTION' }, JSON.stringify(wrong))
    t.same(await ask(), ['trusted'], 'nothing has changed')
  }
  const list = ['10.0.0.0/8']
  app.realIp.setTrustedPeers(list)
  list[0] = '192.0.2.0/24'
  t.same(await ask(), ['trusted'], 'what the caller does to its own list later is nothing')
  app.realIp.setTrustedPeers([])
  t.same(await ask(), ['untrusted'])
  app.realIp.setTrustedPeers('any')
  t.same(await ask(), ['trusted'])
})

t.test('lookup() of a request gives what that began with', onLinux, async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(realIp, { trustedPeers: ['127.0.0.40'] })
  app.get('/', (request) => {
    app.realIp.setTrustedPeers([])
    return [request, request.raw.socket].map((object) => app.realIp.lookup(object).trust)
  })
  const client = await http!.connect(await listen(app), { localAddress: '127.0.0.40' })
  t.same(await client.get('/'), ['trusted', 'untrusted'])
  await client.close()
})

t.test('a predicate that swaps the list while it is asked', onLinux, async (t) => {
  const app = Fastify()
  await app.register(realIp, {
    trustedPeers () {
      app.realIp.setTrustedPeers(['127.0.0.41'])
      return false
    }
  })
  app.get('/', (request) => [request.realAddress.trust])
  t.teardown(() => app.close())
  const client = await http!.connect(await listen(app), { localAddress: '127.0.0.41' })
  t.same(await client.get('/'), ['trusted'], 'the list of the moment')
  await client.close()
})

t.test('wherever the route is, and whoever has asked for the address before', onLinux, async (t) => {
  const ways: Record<string, [fastify: object, plugin: FastifyRealIpOptions]> = {
    plainly: [{}, {}],
    genReqId: [{ genReqId: (raw: never) => app.realIp.lookup(raw).address ?? '' }, {}],
    bindLogger: [{ logger: { level: 'fatal' } }, { bindLogger: true }]
  }
  let app!: FastifyInstance
  for (const [way, [fastify, plugin]] of Object.entries(ways)) {
    app = Fastify(fastify)
    let handled = 0
    // A hook that is older than the plugin's.
    if (way === 'plainly') app.addHook('onRequest', async (request) => { app.realIp.lookup(request) })
    await app.register(realIp, { ...options, ...plugin })
    app.addHook('preHandler', async () => { handled++ })
    app.get('/', (request) => [request.realIp])
    await app.register(async (child) => {
      child.get('/child', (request) => [request.realIp])
      await child.register(async (grandchild) => { grandchild.get('/grandchild', (request) => [request.realIp]) })
    })
    t.teardown(() => app.close())
    const port = await listen(app)
    for (const path of ['/', '/child', '/grandchild', '/nowhere']) {
      const before = handled
      t.ok(await isClosed(app, port, path), `${way}: ${path}`)
      t.equal(handled, before + 1, `${way}: ${path} is handled once`)
    }
    await app.close()
  }
})

t.test('in each of the sibling scopes that register the plugin', onLinux, async (t) => {
  const app = Fastify()
  let scope: FastifyInstance | undefined
  for (const name of ['a', 'b']) {
    await app.register(async (child) => {
      await child.register(realIp, options)
      child.get('/' + name, async (request) => [request.realIp])
      scope = child
    })
  }
  t.teardown(() => app.close())
  const port = await listen(app)
  t.ok(await isClosed(scope!, port, '/a'))
  t.ok(await isClosed(scope!, port, '/b'))
})

t.test('WebSockets: the upgrade is a request, and what is open stays', onLinux, async (t) => {
  const app = Fastify()
  await app.register(realIp, options)
  await app.register(websocket)
  let opened = 0
  app.get('/ws', { websocket: true }, (socket, request) => {
    opened++
    socket.on('message', () => socket.send(JSON.stringify(request.realAddress)))
  })
  app.get('/', (request) => [request.realIp])
  t.teardown(() => app.close())
  const port = await listen(app)
  const upgrade = 'GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n'

  const late = net.connect({ port, host: '127.0.0.1', localAddress: '127.0.0.42' }).on('error', () => {})
  late.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  await once(late, 'data')
  const early = net.connect({ port, host: '127.0.0.1', localAddress: '127.0.0.42' })
  early.write(upgrade)
  t.match(String((await once(early, 'data'))[0]), /101 Switching Protocols/)

  app.realIp.setTrustedPeers(['127.0.0.42'])
  late.write(upgrade)
  await new Promise((resolve) => late.once('close', resolve))
  t.equal(opened, 1)
  // A masked text frame: 'x'.
  early.write(Uint8Array.of(0x81, 0x81, 0, 0, 0, 0, 0x78))
  t.match(String((await once(early, 'data'))[0]), /"address":"127\.0\.0\.42".*"trust":"untrusted"/)
  early.destroy()
})

t.test('HTTP/2: all streams of the connection end with it, and late readers have their answers', onLinux, async (t) => {
  for (const kind of kinds.filter(({ name }) => name === 'h2c' || name === 'h2')) {
    const app = kind.create()
    await app.register(realIp, options)
    const answers: unknown[] = []
    let enter!: () => void
    const entered = new Promise<void>((resolve) => { enter = resolve })
    let left!: (value: unknown) => void
    const leaving = new Promise((resolve) => { left = resolve })
    app.get('/', (request) => [request.realIp])
    app.get('/open', (request) => {
      enter()
      request.raw.once('close', () => {
        answers.push(request.realAddress)
        left(undefined)
      })
      return new Promise(() => {})
    })
    t.teardown(() => app.close())
    const client = await kind.connect(await listen(app), { localAddress: '127.0.0.43' })
    client.socket.on('error', () => {})
    const open = t.rejects(client.get('/open'))
    await entered
    t.same(await client.get('/'), ['127.0.0.43'])
    app.realIp.setTrustedPeers(['127.0.0.43'])
    await t.rejects(client.get('/'))
    await open
    await leaving
    t.match(answers, [{ address: '127.0.0.43', trust: 'untrusted', transportPeer: { port: client.localPort } }], kind.name)
  }
})
