// A limit for each real client, on one machine. node dist/examples/rate-limit.js, then, six times:
// curl -i http://127.0.0.1:3000

import rateLimit from '@fastify/rate-limit'
import Fastify from 'fastify'
import realIp, { realIpKey } from 'fastify-real-ip'

const { HOST = '127.0.0.1', PORT = '3000', TRUSTED_PEERS } = process.env

async function main (): Promise<void> {
  const app = Fastify({ logger: true })
  await app.register(realIp, { trustedPeers: TRUSTED_PEERS?.split(',') ?? 'any' })
  await app.register(rateLimit, {
    max: 5,
    timeWindow: '1 minute',
    // An IPv4 address or an IPv6 /64 is one client; those behind a balancer that does not tell share a key of its own.
    keyGenerator: realIpKey({ ipv6Subnet: 64 })
  })

  app.get('/', (request) => `Hello, ${request.realIp}\n`)

  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => { app.close() })
  await app.listen({ host: HOST, port: Number(PORT) })
}

main()
