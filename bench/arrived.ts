import { connect, type AddressInfo } from 'node:net'
import fastify, { type FastifyRequest } from 'fastify'
import { IPv4 } from './network'
import type { Variant } from './variants'

/** A request on a connection that stays open. */
export async function requestOf ({ options, register }: Omit<Variant, 'address'>): Promise<FastifyRequest> {
  const app = fastify(options)
  await register?.(app)
  const arrived = new Promise<FastifyRequest>((resolve) => {
    app.get('/', (request, reply) => {
      reply.hijack()
      resolve(request)
    })
  })
  await app.listen({ port: 0, host: IPv4.host })
  const { port } = app.server.address() as AddressInfo
  connect({ port, host: IPv4.host, ...(IPv4.from !== undefined && { localAddress: IPv4.from }) })
    .write(`GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: ${IPv4.from ?? IPv4.host}\r\n\r\n`)
  return await arrived
}
