import t from 'tap'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { kinds, listen } from '../kinds'
import { logOf } from '../trust/log'

// What a throw counts as is in test/trust/admit.test.ts and policy.test.ts; here the next client is served.

const onLinux = { skip: process.platform !== 'linux' && 'not Linux' }

/** Throws for one client alone. */
function fail (address: string | undefined): boolean {
  if (address === '127.0.6.1') throw new Error('no')
  return true
}

const throwing: Record<string, FastifyRealIpOptions> = {
  admit: { admit: ({ address }) => fail(address) },
  'admit under a policy': { trustedPeers: ['127.0.0.0/8'], admit: ({ address }) => fail(address) },
  trustedPeers: { trustedPeers: ({ address }) => fail(address), admit: ({ trust }) => trust === 'trusted' }
}

for (const [name, options] of Object.entries(throwing)) {
  for (const kind of kinds) {
    t.test(`${kind.name}: ${name} throws for a client, the next ones are served`, onLinux, async (t) => {
      const { logger, errors } = logOf()
      const app = kind.create({ loggerInstance: logger })
      await app.register(realIp, options)
      app.get('/', (request) => request.realAddress)
      t.teardown(() => app.close())
      const port = await listen(app)
      for (let n = 0; n < 3; n++) {
        await t.rejects(async () => {
          const client = await kind.connect(port, { localAddress: '127.0.6.1' })
          client.socket.on('error', () => {})
          await client.get('/')
        })
        const client = await kind.connect(port, { localAddress: '127.0.6.2' })
        t.match(await client.get('/'), { address: '127.0.6.2', port: client.localPort })
        await client.close()
      }
      t.match(errors, [/threw, which counts as false/])
    })
  }
}
