import t, { type Test } from 'tap'
import { channel } from 'node:diagnostics_channel'
import { createServer } from 'node:http'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import Fastify, { type FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import realIp from 'fastify-real-ip'
import { loadLibc, type Libc } from '../lib/kernel/libc'
import { kinds, listen } from './kinds'

const linux = process.platform === 'linux'
const http = kinds[0]!
setFlagsFromString('--expose-gc')
const gc = runInNewContext('gc') as () => void

/** Counts the system calls that the plugin makes for connections of this process. */
function countReads (t: Test): () => number {
  const libc = loadLibc() as Libc
  const { getpeername } = libc
  let reads = 0
  libc.getpeername = (fd) => {
    reads++
    return getpeername(fd)
  }
  t.teardown(() => { libc.getpeername = getpeername })
  return () => {
    const counted = reads
    reads = 0
    return counted
  }
}

/** What one connection with one request costs where the plugin is registered once. */
async function readsOfOne (t: Test): Promise<number> {
  const reads = countReads(t)
  const app = Fastify()
  await app.register(realIp)
  app.get('/', () => [])
  const client = await http.connect(await listen(app))
  await client.get('/')
  await client.close()
  await app.close()
  return reads()
}

t.test('a connection is read once, whatever the number of requests', { skip: !linux && 'not Linux' }, async (t) => {
  const once = await readsOfOne(t)
  const reads = countReads(t)
  const app = Fastify()
  await app.register(realIp)
  app.get('/', (request) => [request.realIp, request.realIp, request.realAddress])
  t.teardown(() => app.close())
  const client = await http.connect(await listen(app))
  for (let n = 0; n < 5; n++) await client.get('/')
  t.equal(reads(), once)
  await client.close()
})

t.test('registered again with the same options, in any scope, it reads once', { skip: !linux && 'not Linux' }, async (t) => {
  const once = await readsOfOne(t)
  const reads = countReads(t)
  const app = Fastify()
  await app.register(realIp)
  await app.register(realIp)
  await app.register(async (child) => {
    await child.register(realIp)
    child.get('/child', (request) => [request.realIp])
  })
  t.teardown(() => app.close())
  const client = await http.connect(await listen(app), { localAddress: '127.0.0.70' })
  t.same(await client.get('/child'), ['127.0.0.70'])
  t.equal(reads(), once)
  await client.close()
})

t.test('registered in sibling scopes, each has its decorators and the connection is read once', { skip: !linux && 'not Linux' }, async (t) => {
  const once = await readsOfOne(t)
  const reads = countReads(t)
  const app = Fastify()
  for (const name of ['a', 'b']) {
    await app.register(async (child) => {
      await child.register(realIp)
      child.get('/' + name, (request) => [request.realIp, child.realIp.lookup(request).address])
    })
  }
  t.teardown(() => app.close())
  const client = await http.connect(await listen(app), { localAddress: '127.0.0.71' })
  t.same(await client.get('/a'), ['127.0.0.71', '127.0.0.71'])
  t.same(await client.get('/b'), ['127.0.0.71', '127.0.0.71'])
  t.equal(reads(), once)
  await client.close()
})

t.test('registered again with other options is an error that says so', async (t) => {
  const app = Fastify()
  await app.register(realIp)
  t.teardown(() => app.close())
  await t.rejects(async () => app.register(async (child) => {
    await child.register(realIp, { sources: ['getpeername'] })
  }), { code: 'FST_REAL_IP_ALREADY_REGISTERED', message: /with other options\. .*: register the plugin once, at the root, or give the same options each time$/ })
})

t.test('a server that another application takes over when the first was closed is registered anew', { skip: !linux && 'not Linux' }, async (t) => {
  const server = createServer()
  const reuse = () => Fastify({ serverFactory: (handler) => server.removeAllListeners('request').on('request', handler) })
  const first = reuse()
  await first.register(realIp)
  await listen(first)
  await first.close()
  const second = reuse()
  t.teardown(() => second.close())
  await second.register(realIp, { trustedPeers: ['127.0.0.72'] })
  second.get('/', (request) => request.realAddress)
  const client = await http.connect(await listen(second), { localAddress: '127.0.0.72' })
  t.match(await client.get('/'), { address: '127.0.0.72', source: 'transport-peer', trust: 'trusted' })
  await client.close()
})

t.test('a server of which nobody has asked for requests yet', async (t) => {
  const app = Fastify({ serverFactory: () => createServer() })
  t.teardown(() => app.close())
  await app.register(realIp)
  app.get('/', (request) => [request.realIp])
  t.same((await app.inject('/')).json(), ['127.0.0.1'])
})

const others: Array<[name: string, decorate: (app: FastifyInstance) => void]> = [
  ['request.realIp', (app) => { app.decorateRequest('realIp', { getter: () => '203.0.113.66' }) }],
  ['request.realIp', (app) => { app.decorateRequest('realIp', '') }],
  ['request.realAddress', (app) => { app.decorateRequest('realAddress', { getter: () => ({}) as never }) }],
  ['app.realIp', (app) => { app.decorate('realIp', {} as never) }]
]

t.test('a name that somebody else has taken is an error', async (t) => {
  for (const [name, decorate] of others) {
    const expected = { code: 'FST_REAL_IP_NAME_TAKEN', message: new RegExp(`other code has already decorated ${name}\\.`) }
    const app = Fastify()
    t.teardown(() => app.close())
    const before = app.server.listenerCount('connection')
    decorate(app)
    await t.rejects(async () => await app.register(realIp), expected, name)
    t.equal(app.server.listenerCount('connection'), before)
    t.notOk(Object.hasOwn(app.server, 'emit'), 'nothing is left behind')

    // In a scope beside another that has the plugin.
    const scopes = Fastify()
    t.teardown(() => scopes.close())
    await scopes.register(async (child) => { await child.register(realIp) })
    await t.rejects(async () => await scopes.register(async (child) => {
      decorate(child)
      await child.register(realIp)
    }), expected, name)
  }
})

t.test('other plugins can name it as what they need', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(realIp)
  await app.register(fp(async (app) => { app.decorate('needs', app.realIp.stats().connections) }, { name: 'needs-it', dependencies: ['fastify-real-ip'] }))
  t.ok(app.hasDecorator('needs'))
})

t.test('a thousand register-and-close rounds leave no listener and no subscription', async (t) => {
  const watched = (app: FastifyInstance) =>
    ['connection', 'session', 'stream'].map((name) => app.server.listenerCount(name))
  const bare = Fastify()
  const before = watched(bare)
  await bare.close()
  for (let n = 0; n < 1000; n++) {
    const app = Fastify()
    await app.register(realIp)
    if (n % 100 === 0) await listen(app)
    await app.close()
    if (n % 100 === 0) t.same(watched(app), before)
  }
  t.notOk(channel('tracing:net.server.listen:asyncEnd').hasSubscribers)
})

t.test('other servers of the process are left alone', async (t) => {
  const app = Fastify()
  await app.register(realIp)
  app.get('/', (request) => [request.realIp])
  const other = Fastify()
  const count = other.server.listenerCount('connection')
  t.teardown(() => app.close())
  t.teardown(() => other.close())
  await listen(app)
  await listen(other)
  t.equal(other.server.listenerCount('connection'), count)
  t.notOk(other.hasDecorator('realIp'))
})

t.test('require: true starts where a kernel source can work', { skip: !linux && 'not Linux' }, async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(realIp, { require: true })
  t.ok(app.hasDecorator('realIp'))
})

// Not over HTTP/2: there evidence goes with the session, and sessions that are closed are kept for a time, without the plugin too.
for (const kind of kinds.filter(({ name }) => name !== 'h2c' && name !== 'h2')) {
  for (const options of [{}, { trustedPeers: ['127.0.0.0/8'] }]) {
    const policy = 'trustedPeers' in options ? 'a policy' : 'no policy'
    t.test(`${kind.name}, ${policy}: the evidence of a connection goes with its socket`, { skip: !linux && 'not Linux' }, async (t) => {
      const app = kind.create()
      await app.register(realIp, options)
      app.get('/', (request) => [request.realIp])
      t.teardown(() => app.close())
      const port = await listen(app)
      let live = 0
      const registry = new FinalizationRegistry(() => { live-- })
      app.server.on('connection', (socket) => {
        live++
        registry.register(app.realIp.lookup(socket), undefined)
      })
      for (let n = 0; n < 50; n++) {
        const client = await kind.connect(port)
        await client.get('/')
        await client.close()
      }
      t.equal(live > 0, true)
      for (let round = 0; round < 100 && live > 2; round++) {
        gc()
        await new Promise((resolve) => setImmediate(resolve))
      }
      t.ok(live <= 2, `${live} of 50 answers are still held`)
    })
  }
}
