import { strictEqual, notStrictEqual } from 'node:assert'
import Fastify from 'fastify'
import realIp, { fastifyRealIp } from 'fastify-real-ip'
import * as namespace from 'fastify-real-ip'

for (const plugin of [realIp, fastifyRealIp, namespace.default, import('fastify-real-ip')]) {
  const app = Fastify()
  await app.register(plugin)
  app.get('/', (request) => request.realAddress)
  const response = await fetch(await app.listen({ host: '127.0.0.1', port: 0 }))
  const { address, source } = await response.json()
  await app.close()
  strictEqual(address, '127.0.0.1')
  if (process.platform === 'linux') notStrictEqual(source, 'peer')
}
