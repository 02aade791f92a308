// Under PM2, a worker for each core: TRUSTED_PEERS=127.0.0.1 npx pm2 start examples/pm2.config.js
// then: curl http://127.0.0.1:3000
//
// In cluster mode PM2 accepts the connections and hands them to the workers in turn. No worker has a listening socket:
// each connection's sender is looked up by sock_diag, which takes longer, and each worker warns of that once. Those of
// examples/cluster.ts listen themselves.

import cluster from 'node:cluster'
import Fastify from 'fastify'
import realIp from 'fastify-real-ip'

const { HOST = '127.0.0.1', PORT = '3000', TRUSTED_PEERS = '' } = process.env
// Lost or empty it is no list of addresses: the server then fails to start.
const trustedPeers = TRUSTED_PEERS === 'any' ? TRUSTED_PEERS : TRUSTED_PEERS.split(',')

async function main (): Promise<void> {
  const app = Fastify({ logger: true })
  await app.register(realIp, { trustedPeers })

  app.get('/', (request) => `Hello, ${request.realIp}, from process ${process.pid}\n`)

  // Connections may be on their way to this process: exit() would lose them.
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, () => { app.close().then(() => cluster.worker?.disconnect()) })
  }
  await app.listen({ host: HOST, port: Number(PORT) })
  // For wait_ready.
  process.send?.('ready')
}

main().catch((error) => {
  console.error(error)
  // PM2 keeps a process whose promise was rejected.
  process.exit(1)
})
