import Fastify from 'fastify'
import t from 'tap'
import realIp from 'fastify-real-ip'

// What an older Node.js does not publish, as the releases themselves showed.

const servers = require('../../lib/node/servers') as typeof import('../../lib/node/servers')

t.test('which versions tell of servers that begin to listen', async (t) => {
  for (const version of ['20.16.0', '20.20.2', '22.3.0', '22.12.0', '23.0.0', '24.1.0', '26.0.0']) t.ok(servers.tellsOfServers(version), version)
  for (const version of ['18.20.0', '20.0.0', '20.15.1', '21.7.3', '22.0.0', '22.2.0']) t.notOk(servers.tellsOfServers(version), version)
})

t.test('a list is refused on a version that does not', async (t) => {
  const { tellsOfServers } = servers
  servers.tellsOfServers = () => false
  t.teardown(() => { servers.tellsOfServers = tellsOfServers })
  for (const trustedPeers of [[], ['10.0.0.0/8'], () => true]) {
    const app = Fastify()
    t.teardown(() => app.close())
    await t.rejects(async () => await app.register(realIp, { trustedPeers }), { code: 'FST_REAL_IP_NO_TRANSPORT_PEER', message: /Use 20\.16 or a later 20, or 22\.3 or later/ })
  }
  for (const options of [{}, { trustedPeers: 'any' } as const]) {
    const app = Fastify()
    t.teardown(() => app.close())
    await app.register(realIp, options)
    app.get('/', (request) => [request.realIp])
    t.same((await app.inject('/')).json(), ['127.0.0.1'])
  }
})
