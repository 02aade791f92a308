// Behind nginx on the same host, over TCP on loopback:
//   TRUSTED_PEERS=127.0.0.1 node dist/examples/nginx.js
// or over a Unix-domain socket:
//   TRUSTED_PEERS=unix SOCKET=/run/hello/hello.sock node dist/examples/nginx.js
//
// nginx overwrites the client's headers with the address that connected to it:
//   location / {
//     proxy_pass http://127.0.0.1:3000;                  # or http://unix:/run/hello/hello.sock:
//     proxy_set_header X-Real-IP $remote_addr;
//     proxy_set_header X-Forwarded-Proto $scheme;
//     proxy_set_header X-Forwarded-Host $http_host;
//   }
// No other process on this host may reach the port or the socket's folder: it could write any address.

import Fastify from 'fastify'
import realIp, { realIpIn } from 'fastify-real-ip'

const {
  HOST = '127.0.0.1', PORT = '3000', SOCKET, TRUSTED_PEERS = '', STAFF = '192.0.2.0/24,2001:db8:5::/48'
} = process.env
// If TRUSTED_PEERS is missing or empty, this is not a list of addresses, and the server fails to start.
const trust = TRUSTED_PEERS.split(',')
// Never true for nginx's own address, which is the answer if the header is missing.
const isStaff = realIpIn(STAFF.split(','))

async function main (): Promise<void> {
  const app = Fastify({ logger: true })
  await app.register(realIp, { forwarded: { trust, header: 'x-real-ip' }, overrideRequest: true })

  app.get('/', (request) => `Hello, ${request.realIp}, by ${request.protocol}://${request.host}\n`)
  app.get('/admin', (request, reply) => isStaff(request) ? 'Hello, staff\n' : reply.code(403).send('Staff only\n'))

  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => { app.close() })
  await app.listen(SOCKET === undefined ? { host: HOST, port: Number(PORT) } : { path: SOCKET })
}

main()
