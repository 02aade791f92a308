import { notStrictEqual, strictEqual } from 'node:assert'
import Fastify, { type FastifyInstance } from 'fastify'
import realIp, { fastifyRealIp, type FastifyRealIpOptions, type RealAddress } from 'fastify-real-ip'

const options: FastifyRealIpOptions = { sources: ['vtoa', 'getpeername'], require: false }

const forms: Array<(app: FastifyInstance) => PromiseLike<unknown>> = [
  (app) => app.register(realIp, options),
  (app) => app.register(fastifyRealIp, options),
  (app) => app.register(import('fastify-real-ip'), options)
]

async function main (): Promise<void> {
  for (const register of forms) {
    const app = Fastify()
    await register(app)
    app.get('/', (request): RealAddress => request.realAddress)
    const response = await fetch(await app.listen({ host: '127.0.0.1', port: 0 }))
    const { address, source } = await response.json() as RealAddress
    await app.close()
    strictEqual(address, '127.0.0.1')
    if (process.platform === 'linux') notStrictEqual(source, 'peer')
  }
}

main()
