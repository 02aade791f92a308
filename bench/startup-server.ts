import type { FastifyInstance } from 'fastify'
import { once } from 'node:events'
import { connect, type AddressInfo } from 'node:net'
import { answer } from './child'
import type { Startup } from './startup'

// From the first require to the first answer, in a fresh process: node startup-server.js VARIANT

const HOST = '127.0.0.1'

const register: Readonly<Record<string, (app: FastifyInstance) => unknown>> = {
  plain () {},
  control () {},
  'fastify-real-ip': (app) => app.register(require('fastify-real-ip')),
  'fastify-real-ip, trustedPeers': (app) => app.register(require('fastify-real-ip'), { trustedPeers: [HOST] })
}

async function startUp (name: string): Promise<Startup> {
  const start = performance.now()
  const cpuAtStart = process.cpuUsage()
  const app = require('fastify')() as FastifyInstance
  await register[name]?.(app)
  // Both answers have the same text.
  app.get('/', (request, reply) => { reply.send(request.realIp ?? HOST) })
  await app.listen({ port: 0, host: HOST })
  const socket = connect((app.server.address() as AddressInfo).port, HOST)
  socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
  const [bytes] = await once(socket, 'data') as [Buffer]
  const milliseconds = performance.now() - start
  const { user, system } = process.cpuUsage(cpuAtStart)
  if (!bytes.toString('latin1').startsWith('HTTP/1.1 200 ')) throw new Error(`unexpected answer: ${bytes}`)
  return { milliseconds, cpuMilliseconds: (user + system) / 1000 }
}

answer({ startUp: () => startUp(process.argv[2] as string) })
