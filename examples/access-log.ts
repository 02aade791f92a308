// The client's address in every log line.
// TRUSTED_PEERS=127.0.0.1 node dist/examples/access-log.js, then: curl http://127.0.0.1:3000
//
// The line "incoming request" has the address with its provenance; every line of the request has the address. With
// LOG_NAMES=opentelemetry the fields are client.address, client.port and network.peer.address.

import Fastify from 'fastify'
import realIp, { type LogNames, withRealIp } from 'fastify-real-ip'

const { HOST = '127.0.0.1', PORT = '3000', TRUSTED_PEERS = '', LOG_NAMES = 'plain' } = process.env
// If TRUSTED_PEERS is missing or empty, this is not a list of addresses, and the server fails to start.
const trustedPeers = TRUSTED_PEERS === 'any' ? TRUSTED_PEERS : TRUSTED_PEERS.split(',')

async function main (): Promise<void> {
  const names = LOG_NAMES as LogNames
  const app = Fastify({ logger: { serializers: { req: withRealIp({ names }) } } })
  // Before any route: a route keeps the logger factory that was set when it was declared.
  await app.register(realIp, { trustedPeers, bindLogger: { names } })

  app.get('/', (request) => {
    request.log.info('saying hello')
    return `Hello, ${request.realIp}\n`
  })

  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => { app.close() })
  await app.listen({ host: HOST, port: Number(PORT) })
}

main()
