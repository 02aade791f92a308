// A limit per real client across servers that share one Redis. Start two of them:
// export TRUSTED_PEERS=127.0.0.1
// PORT=3000 node dist/examples/rate-limit-redis.js & PORT=3001 node dist/examples/rate-limit-redis.js
//
// REDIS is a URL or the path of a socket.

import rateLimit from '@fastify/rate-limit'
import Fastify from 'fastify'
import { Redis } from 'ioredis'
import realIp, { realIpKey } from 'fastify-real-ip'

const { HOST = '127.0.0.1', PORT = '3000', TRUSTED_PEERS = '', REDIS = 'redis://127.0.0.1:6379' } = process.env
// If TRUSTED_PEERS is missing or empty, this is not a list of addresses, and the server fails to start.
const trustedPeers = TRUSTED_PEERS === 'any' ? TRUSTED_PEERS : TRUSTED_PEERS.split(',')

async function main (): Promise<void> {
  const app = Fastify({ logger: true })
  // While Redis is down, requests do not wait for it.
  const redis = new Redis(REDIS, { lazyConnect: true, connectTimeout: 500, enableOfflineQueue: false })
  redis.on('error', (error) => app.log.error({ err: error }, 'redis'))
  app.addHook('onClose', async () => { redis.disconnect() })
  await redis.connect().catch(() => { /* logged above; the client keeps trying */ })

  await app.register(realIp, { trustedPeers })
  await app.register(rateLimit, {
    redis,
    // While Redis is down there is no limit. Without this option, requests fail.
    skipOnError: true,
    max: 5,
    timeWindow: '1 minute',
    keyGenerator: realIpKey({ ipv6Subnet: 64 })
  })

  app.get('/', (request) => `Hello, ${request.realIp}\n`)

  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => { app.close() })
  await app.listen({ host: HOST, port: Number(PORT) })
}

main()
