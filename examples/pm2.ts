// Under PM2, a worker for each core: TRUSTED_PEERS=127.0.0.1 npx pm2 start examples/pm2.config.js
// then: curl http://127.0.0.1:3000
//
// In cluster mode PM2 accepts the connections and passes them to the workers in turn. No worker has a listening socket:
// each connection's sender is looked up with sock_diag, which takes longer, and each worker logs a warning once. In
// examples/cluster.ts the workers have their own listening sockets.

import cluster from 'node:cluster'
import Fastify from 'fastify'
import realIp from 'fastify-real-ip'

const { HOST = '127.0.0.1', PORT = '3000', TRUSTED_PEERS = '' } = process.env
// If TRUSTED_PEERS is missing or empty, this is not a list of addresses, and the server fails to start.
const trustedPeers = TRUSTED_PEERS === 'any' ? TRUSTED_PEERS : TRUSTED_PEERS.split(',')

async function main (): Promise<void> {
  const app = Fastify({ logger: true })
  await app.register(realIp, { trustedPeers })

  app.get('/', (request) => `Hello, ${request.realIp}, from process ${process.pid}\n`)

  // PM2 may already have sent connections to this process: exit() would lose them.
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.once(signal, () => { app.close().then(() => cluster.worker?.disconnect()) })
  }
  await app.listen({ host: HOST, port: Number(PORT) })
  // See wait_ready in pm2.config.js.
  process.send?.('ready')
}

main().catch((error) => {
  console.error(error)
  // PM2 keeps a process whose promise was rejected.
  process.exit(1)
})
