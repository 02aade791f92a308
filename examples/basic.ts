// The client's address in a handler.
// TRUSTED_PEERS=127.0.0.1 node dist/examples/basic.js, then: curl http://127.0.0.1:3000

import Fastify from 'fastify'
import realIp from 'fastify-real-ip'

// The addresses of the balancers as this server sees them: TRUSTED_PEERS=10.0.0.0/24,10.0.1.0/24. 'any' believes
// everyone who reaches the port: only for servers that nobody but their balancers can reach.
const { HOST = '127.0.0.1', PORT = '3000', TRUSTED_PEERS = '' } = process.env
// If TRUSTED_PEERS is missing or empty, this is not a list of addresses, and the server fails to start.
const trustedPeers = TRUSTED_PEERS === 'any' ? TRUSTED_PEERS : TRUSTED_PEERS.split(',')

async function main (): Promise<void> {
  const app = Fastify({ logger: true })
  await app.register(realIp, { trustedPeers })

  app.get('/', (request) => `Hello, ${request.realIp}\n`)
  app.get('/why', (request) => request.realAddress)

  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => { app.close() })
  await app.listen({ host: HOST, port: Number(PORT) })
}

main()
