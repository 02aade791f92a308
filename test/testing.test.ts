import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import realIp, { type FastifyRealIpOptions, realIpKey } from 'fastify-real-ip'
import { fromClient } from 'fastify-real-ip/testing'

const policies: FastifyRealIpOptions[] = [
  {}, { trustedPeers: [] }, { trustedPeers: 'any' }, { trustedPeers: ['10.0.0.0/8'], missing: 'reject', unverified: 'reject' }
]

t.test('a request of inject() comes from the client that a test chooses, under any policy', async (t) => {
  for (const options of policies) {
    const app: FastifyInstance = Fastify({ genReqId: (raw) => app.realIp.lookup(raw).address ?? 'nobody' })
    await app.register(realIp, options)
    app.get('/', (request) => ({ id: request.id, ip: request.realIp, key: realIpKey()(request), answer: request.realAddress }))
    t.teardown(() => app.close())
    const ask = async (client: Parameters<typeof fromClient>[0]) => (await app.inject({ url: '/', ...fromClient(client) })).json()

    t.same(await ask('::ffff:203.0.113.7'), {
      id: '203.0.113.7',
      ip: '203.0.113.7',
      key: '203.0.113.7',
      answer: { address: '203.0.113.7', family: 'IPv4', source: 'vtoa', trust: 'trusted', attempts: [] }
    })
    const peer = { address: '10.0.0.2', port: 40000 }
    t.match(await ask({ ...peer, source: 'transport-peer', reason: 'no-toa', transportPeer: peer }), {
      ip: '10.0.0.2', key: 'no-toa:10.0.0.2', answer: { ...peer, trust: 'trusted', reason: 'no-toa', transportPeer: peer }
    })
    t.match(await ask({ trust: 'unverified', reason: 'unverified-peer' }), {
      id: 'nobody', key: 'unknown:unverified-peer', answer: { source: 'none', trust: 'unverified' }
    })
  }
})

t.test('no forwarding header changes it, not even one of a proxy', async (t) => {
  const app = Fastify()
  await app.register(realIp, { trustedPeers: [], forwarded: { trust: ['10.0.0.0/8'] } })
  app.get('/', (request) => [request.realIp])
  t.teardown(() => app.close())
  const headers = { 'x-forwarded-for': '203.0.113.7' }
  t.same((await app.inject({ url: '/', headers, remoteAddress: '10.0.0.2' })).json(), ['203.0.113.7'])
  t.same((await app.inject({ url: '/', headers, ...fromClient('10.0.0.2') })).json(), ['10.0.0.2'])
})

t.test('admit is asked about it', async (t) => {
  const app = Fastify()
  let handled = 0
  await app.register(realIp, { admit: ({ address }) => address === '203.0.113.7' })
  app.get('/', () => ++handled)
  t.teardown(() => app.close())
  t.equal((await app.inject({ url: '/', ...fromClient('203.0.113.7') })).statusCode, 200)
  await t.rejects(app.inject({ url: '/', ...fromClient('203.0.113.8') }), { code: 'LIGHT_ECONNRESET' })
  t.equal(handled, 1)
})

t.test('no header or property of a request can stage a client', async (t) => {
  const app = Fastify()
  await app.register(realIp, { trustedPeers: [] })
  app.get('/', (request) => request.realAddress)
  t.teardown(() => app.close())
  const { Request } = fromClient('203.0.113.7')
  t.same(Object.keys(Request), [], 'nothing to copy')
  const answer = (await app.inject({ url: '/', headers: { 'fastify-real-ip.client': '203.0.113.7' }, remoteAddress: '192.0.2.9' })).json()
  t.match(answer, { address: '192.0.2.9', trust: 'untrusted' })
})

t.test('a client that is none is an error', async (t) => {
  for (const [client, message] of [
    ['nonsense', /'address' must be an IP address/], [{ address: '10.0.0.1%eth0' }, /'address'/], [{ source: 'toa' }, /'source' takes 'vtoa'/],
    [{ trust: 'maybe' }, /'trust' takes 'trusted'/], [{ ip: '10.0.0.1' }, /there is no 'ip'/], [undefined, /must be an object like/]
  ] as Array<[never, RegExp]>) {
    t.throws(() => fromClient(client), { code: 'FST_REAL_IP_INVALID_OPTION', message }, JSON.stringify(client))
  }
})
