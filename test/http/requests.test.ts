import { once } from 'node:events'
import http from 'node:http'
import http2 from 'node:http2'
import type { AddressInfo } from 'node:net'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { CLIENT, kinds, listen } from '../kinds'
import { logOf } from '../trust/log'

const linux = process.platform === 'linux'
const plain = kinds[0]!
const h2c = kinds.find(({ name }) => name === 'h2c')!
const everybody = ['0.0.0.0/0', '::/0']

interface Behind {
  readonly app: FastifyInstance
  readonly port: number
  readonly codes: string[]
  handled (): number
}

/** An application whose requests come through another server, which the plugin has never heard of. */
async function behind (t: Test, options: FastifyRealIpOptions, kind = plain): Promise<Behind> {
  const { logger, codes } = logOf()
  const app = kind.create({ loggerInstance: logger, forceCloseConnections: true })
  await app.register(realIp, options)
  let handled = 0
  app.get('/', (request) => {
    handled++
    return { ...request.realAddress, again: request.realIp, looked: app.realIp.lookup(request.raw).trust }
  })
  await app.ready()
  // Not app.routing itself: by that a server would be known as one of this application's.
  const route = (request: unknown, response: unknown) => { app.routing(request as http.IncomingMessage, response as http.ServerResponse) }
  const front = kind === h2c ? http2.createServer(route) : http.createServer(route)
  front.listen(0, '127.0.0.1')
  await once(front, 'listening')
  t.teardown(() => {
    front.close()
    return app.close()
  })
  return { app, port: (front.address() as AddressInfo).port, codes, handled: () => handled }
}

/** What the server makes of a request; 'closed' where it ends the connection instead. */
async function ask (port: number, kind = plain): Promise<any> {
  const client = await kind.connect(port, { localAddress: CLIENT })
  client.socket.on('error', () => {})
  try {
    const closed = new Promise((resolve) => client.socket.once('close', () => { resolve('closed') }))
    return await Promise.race([client.get('/').catch(() => 'closed'), closed])
  } finally {
    await client.close().catch(() => {})
  }
}

t.test('a request whose connection was never observed is what unverified says, and never passes', { skip: !linux && 'not Linux' }, async (t) => {
  for (const kind of [plain, h2c]) {
    const name = kind.name
    const ignored = await behind(t, { trustedPeers: everybody }, kind)
    for (let n = 0; n < 2; n++) {
      t.match(await ask(ignored.port, kind), { source: 'none', trust: 'unverified', reason: 'unverified-peer', looked: 'unverified' }, name)
    }
    t.same(ignored.codes.filter((code) => code === 'FST_REAL_IP_UNOBSERVED'), ['FST_REAL_IP_UNOBSERVED'], 'logged once')

    const rejected = await behind(t, { trustedPeers: everybody, unverified: 'reject' }, kind)
    for (let n = 0; n < 2; n++) t.equal(await ask(rejected.port, kind), 'closed', name)
    t.equal(rejected.handled(), 0, `${name}: no handler runs`)
    t.same(rejected.codes.filter((code) => code === 'FST_REAL_IP_UNOBSERVED'), ['FST_REAL_IP_UNOBSERVED'])

    const believed = await behind(t, { trustedPeers: everybody, unverified: 'believe' }, kind)
    t.match(await ask(believed.port, kind), { address: CLIENT, source: 'peer', trust: 'unverified' }, name)

    const asked: string[] = []
    const admitted = await behind(t, {
      trustedPeers: everybody,
      admit ({ trust }) {
        asked.push(trust)
        return false
      }
    }, kind)
    t.equal(await ask(admitted.port, kind), 'closed', name)
    t.same(asked, ['unverified'])

    const open = await behind(t, {}, kind)
    t.match(await ask(open.port, kind), { address: CLIENT, source: 'peer', trust: 'unchecked', reason: 'unobserved' })
    t.same(open.codes.filter((code) => code === 'FST_REAL_IP_UNOBSERVED'), [], 'without a policy nobody needs to know')
  }
})

t.test('only what inject() made is a request of inject()', async (t) => {
  for (const socket of [{ remoteAddress: '10.0.0.2' }, { remoteAddress: '10.0.0.2', remotePort: 80, _handle: { fd: 1 } }]) {
    const app = Fastify()
    await app.register(realIp, { trustedPeers: ['10.0.0.2'], unverified: 'reject' })
    let handled = 0
    app.get('/', () => {
      handled++
      return {}
    })
    t.teardown(() => app.close())
    await app.ready()
    const request = Object.assign(new http.IncomingMessage(socket as never), { url: '/', method: 'GET' })
    app.routing(request, new http.ServerResponse(request))
    await new Promise((resolve) => setImmediate(resolve))
    t.equal(handled, 0)
    t.match(app.realIp.lookup(request), { source: 'none', trust: 'unverified' })
    t.equal((await app.inject({ url: '/', remoteAddress: '10.0.0.2' })).statusCode, 200)
    t.equal(handled, 1)
  }
})

t.test('a request of inject() is ruled like any other, and a refused one is reset', async (t) => {
  const cases: Array<[options: FastifyRealIpOptions, remoteAddress: string, isRefused: boolean]> = [
    [{ trustedPeers: ['10.0.0.2'], missing: 'reject' }, '10.0.0.2', true],
    [{ trustedPeers: ['10.0.0.2'], missing: 'reject' }, '10.0.0.3', false],
    [{ trustedPeers: ['10.0.0.2'], unverified: 'reject' }, 'nowhere', true],
    [{ trustedPeers: [], untrusted: 'reject' }, '10.0.0.3', false],
    [{ admit: ({ address }) => address !== '10.0.0.3' }, '10.0.0.3', true],
    [{ admit: ({ address }) => address !== '10.0.0.3' }, '10.0.0.2', false]
  ]
  for (const [options, remoteAddress, isRefused] of cases) {
    for (const create of [() => Fastify(), () => Fastify({ http2: true }) as unknown as FastifyInstance]) {
      const app = create()
      await app.register(realIp, options)
      let handled = 0
      app.get('/', () => {
        handled++
        return {}
      })
      t.teardown(() => app.close())
      const injected = app.inject({ url: '/', remoteAddress })
      if (isRefused) await t.rejects(injected, { code: 'LIGHT_ECONNRESET' })
      else t.equal((await injected).statusCode, 200)
      t.equal(handled, isRefused ? 0 : 1, remoteAddress)
    }
  }
})

t.test('what middleware puts on requests leads nowhere', async (t) => {
  for (const kind of kinds) {
    const app = kind.create({ forceCloseConnections: true })
    // Before the plugin's own hook and after it, as express-session and others do.
    const things = [{ session: { id: 'x' } }, { stream: { id: 'x' } }, { session: { socket: { remoteAddress: '203.0.113.66' } }, stream: { session: {} } }]
    let at = 0
    const put = async ({ raw }: { raw: object }) => {
      if (kind.name === 'h2c' || kind.name === 'h2') return
      Object.assign(raw, things[at % things.length])
    }
    app.addHook('onRequest', put)
    await app.register(realIp, linux ? { trustedPeers: [CLIENT] } : {})
    app.addHook('onRequest', put)
    app.get('/', (request) => ({
      ...request.realAddress, looked: [request, request.raw, request.raw.socket].map((object) => app.realIp.lookup(object).address)
    }))
    t.teardown(() => app.close())
    const port = await listen(app)
    for (; at < things.length; at++) {
      const client = await kind.connect(port, { localAddress: CLIENT })
      t.match(await client.get('/'), { address: CLIENT, trust: linux ? 'trusted' : 'unchecked', looked: [CLIENT, CLIENT, CLIENT] }, `${kind.name} ${JSON.stringify(things[at])}`)
      await client.close()
    }
  }
})
