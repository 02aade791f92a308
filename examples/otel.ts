// The client's address in traces. TRUSTED_PEERS=127.0.0.1 node dist/examples/otel.js, then: curl http://127.0.0.1:3000
//
// Spans are printed; replace ConsoleSpanExporter with an exporter of your own.

import { FastifyOtelInstrumentation } from '@fastify/otel'
import { ConsoleSpanExporter, NodeTracerProvider, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node'
import Fastify from 'fastify'
import realIp from 'fastify-real-ip'

const { HOST = '127.0.0.1', PORT = '3000', TRUSTED_PEERS = '' } = process.env
// If TRUSTED_PEERS is missing or empty, this is not a list of addresses, and the server fails to start.
const trustedPeers = TRUSTED_PEERS === 'any' ? TRUSTED_PEERS : TRUSTED_PEERS.split(',')

const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(new ConsoleSpanExporter())] })
provider.register()

const instrumentation = new FastifyOtelInstrumentation({
  requestHook (span, request) {
    const { address, port, transportPeer } = request.realAddress
    if (address !== undefined) span.setAttribute('client.address', address)
    if (port !== undefined) span.setAttribute('client.port', port)
    if (transportPeer !== undefined) span.setAttribute('network.peer.address', transportPeer.address)
    if (transportPeer?.port !== undefined) span.setAttribute('network.peer.port', transportPeer.port)
  }
})
instrumentation.setTracerProvider(provider)

async function main (): Promise<void> {
  const app = Fastify({ logger: true })
  // First: its hook rejects requests before other hooks run.
  await app.register(realIp, { trustedPeers })
  await app.register(instrumentation.plugin())
  app.addHook('onClose', async () => { await provider.shutdown() })

  app.get('/', (request) => `Hello, ${request.realIp}\n`)

  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => { app.close() })
  await app.listen({ host: HOST, port: Number(PORT) })
}

main()
