// HTTPS and HTTP/2 on one port.
// TRUSTED_PEERS=127.0.0.1 node dist/examples/https-http2.js, then: curl -k https://127.0.0.1:3000, with --http1.1 too
//
// The balancer forwards TCP, and this server terminates TLS: the balancer cannot add a header, so the address can only
// come from the connection.

import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import Fastify from 'fastify'
import realIp from 'fastify-real-ip'

// A self-signed certificate for tests, unless you provide one.
const fixtures = join(dirname(require.resolve('fastify-real-ip/package.json')), 'test/fixtures')
const {
  HOST = '127.0.0.1', PORT = '3000', TRUSTED_PEERS = '',
  TLS_KEY = join(fixtures, 'key.pem'), TLS_CERT = join(fixtures, 'cert.pem')
} = process.env
// If TRUSTED_PEERS is missing or empty, this is not a list of addresses, and the server fails to start.
const trustedPeers = TRUSTED_PEERS === 'any' ? TRUSTED_PEERS : TRUSTED_PEERS.split(',')

async function main (): Promise<void> {
  const app = Fastify({
    logger: true,
    http2: true,
    https: { key: readFileSync(TLS_KEY), cert: readFileSync(TLS_CERT), allowHTTP1: true }
  })
  await app.register(realIp, { trustedPeers })

  app.get('/', (request) => `Hello, ${request.realIp}, over HTTP/${request.raw.httpVersion}\n`)

  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => { app.close() })
  await app.listen({ host: HOST, port: Number(PORT) })
}

main()
