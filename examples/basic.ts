// The client's address in a handler. node dist/examples/basic.js, then: curl http://127.0.0.1:3000

import Fastify from 'fastify'
import realIp from 'fastify-real-ip'

// The balancers' addresses as this server sees them: TRUSTED_PEERS=10.0.0.0/24,10.0.1.0/24
const { HOST = '127.0.0.1', PORT = '3000', TRUSTED_PEERS } = process.env

async function main (): Promise<void> {
  const app = Fastify({ logger: true })
  // 'any' believes whoever reaches the port: only for servers that nobody but their balancers can reach.
  await app.register(realIp, { trustedPeers: TRUSTED_PEERS?.split(',') ?? 'any' })

  app.get('/', (request) => `Hello, ${request.realIp}\n`)
  app.get('/why', (request) => request.realAddress)

  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => { app.close() })
  await app.listen({ host: HOST, port: Number(PORT) })
}

main()
