// A limit per real client, on one machine. TRUSTED_PEERS=127.0.0.1 node dist/examples/rate-limit.js, then, six times:
// curl -i http://127.0.0.1:3000

import rateLimit from '@fastify/rate-limit'
import Fastify from 'fastify'
import realIp, { realIpKey } from 'fastify-real-ip'

const { HOST = '127.0.0.1', PORT = '3000', TRUSTED_PEERS = '' } = process.env
// If TRUSTED_PEERS is missing or empty, this is not a list of addresses, and the server fails to start.
const trustedPeers = TRUSTED_PEERS === 'any' ? TRUSTED_PEERS : TRUSTED_PEERS.split(',')

async function main (): Promise<void> {
  const app = Fastify({ logger: true })
  await app.register(realIp, { trustedPeers })
  await app.register(rateLimit, {
    max: 5,
    timeWindow: '1 minute',
    // An IPv4 address or an IPv6 /64 counts as one client; clients that their balancer does not name share a separate
    // key.
    keyGenerator: realIpKey({ ipv6Subnet: 64 })
  })

  app.get('/', (request) => `Hello, ${request.realIp}\n`)

  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => { app.close() })
  await app.listen({ host: HOST, port: Number(PORT) })
}

main()
