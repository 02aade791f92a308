// The client's address in every log line.
// TRUSTED_PEERS=127.0.0.1 node dist/examples/access-log.js, then: curl http://127.0.0.1:3000
//
// "incoming request" says who asks and why that is believed; every line of the request has the address. With
// LOG_NAMES=opentelemetry the fields are called client.address, client.port, network.peer.address.

import Fastify from 'fastify'
import realIp, { type LogNames, withRealIp } from 'fastify-real-ip'

const { HOST = '127.0.0.1', PORT = '3000', TRUSTED_PEERS = '', LOG_NAMES = 'plain' } = process.env
// Lost or empty it is no list of addresses: the server then fails to start.
const trustedPeers = TRUSTED_PEERS === 'any' ? TRUSTED_PEERS : TRUSTED_PEERS.split(',')

async function main (): Promise<void> {
  const names = LOG_NAMES as LogNames
  const app = Fastify({ logger: { serializers: { req: withRealIp({ names }) } } })
  // Before any route: a route's logger is made the way that was set when the route was declared.
  await app.register(realIp, { trustedPeers, bindLogger: { names } })

  app.get('/', (request) => {
    request.log.info('saying hello')
    return `Hello, ${request.realIp}\n`
  })

  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => { app.close() })
  await app.listen({ host: HOST, port: Number(PORT) })
}

main()
