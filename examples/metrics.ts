// Connection counters for Prometheus.
// TRUSTED_PEERS=127.0.0.1 node dist/examples/metrics.js, then: curl http://127.0.0.1:3000/metrics
//
// Monitor real_ip_connections_by_reason_total: {reason="no-toa"} counts clients whose balancer does not name them,
// {reason="untrusted-peer"} claims of peers that are not balancers, {reason="unverified-peer"} connections whose sender
// was not found.

import Fastify, { type FastifyInstance } from 'fastify'
import { Counter, Registry } from 'prom-client'
import realIp, { type Stats } from 'fastify-real-ip'

const { HOST = '127.0.0.1', PORT = '3000', TRUSTED_PEERS = '' } = process.env
// If TRUSTED_PEERS is missing or empty, this is not a list of addresses, and the server fails to start.
const trustedPeers = TRUSTED_PEERS === 'any' ? TRUSTED_PEERS : TRUSTED_PEERS.split(',')

/** The plugin always counts: its counters are read only when Prometheus asks. */
function countConnections (app: FastifyInstance): Registry {
  const registry = new Registry()
  type Read = (counter: Counter, stats: Stats) => void
  const counter = (name: string, help: string, labels: string[], read: Read) => new Counter({
    name,
    help,
    labelNames: labels,
    registers: [registry],
    collect () {
      this.reset()
      read(this, app.realIp.stats())
    }
  })

  for (const by of ['source', 'trust', 'reason'] as const) {
    counter(`real_ip_connections_by_${by}_total`, `Connections by ${by}`, [by], (counter, stats) => {
      for (const [value, count] of Object.entries(stats[by])) counter.inc({ [by]: value }, count)
    })
  }
  counter('real_ip_connections_rejected_total', 'Connections that were reset at once', [], (counter, { rejected }) => {
    counter.inc(rejected)
  })
  return registry
}

async function main (): Promise<void> {
  const app = Fastify({ logger: true })
  await app.register(realIp, { trustedPeers })
  const registry = countConnections(app)

  app.get('/', (request) => `Hello, ${request.realIp}\n`)
  // Only Prometheus should be able to reach it.
  app.get('/metrics', async (_request, reply) => {
    reply.type(registry.contentType)
    return registry.metrics()
  })

  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => { app.close() })
  await app.listen({ host: HOST, port: Number(PORT) })
}

main()
