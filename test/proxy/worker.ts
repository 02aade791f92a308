// A server of a cluster: says what it listens on, answers with the address, and ends when told to.
import cluster from 'node:cluster'
import Fastify from 'fastify'
import realIp from 'fastify-real-ip'

async function serve (listen: object): Promise<void> {
  const app = Fastify({ forceCloseConnections: true })
  await app.register(realIp, { sources: ['proxy-protocol'], trustedPeers: ['127.0.0.9'] })
  app.get('/', ({ realAddress }) => ({ ...realAddress, worker: cluster.worker?.id }))
  process.once('message', () => { void app.close().then(() => process.exit()) })
  await app.listen(listen)
  process.send?.((app.server.address() as { port: number }).port)
}

if (process.env.FASTIFY_REAL_IP_LISTEN !== undefined) void serve(JSON.parse(process.env.FASTIFY_REAL_IP_LISTEN))
