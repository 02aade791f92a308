'use strict'

const { strictEqual, notStrictEqual } = require('node:assert')
const Fastify = require('fastify')
const realIp = require('fastify-real-ip')
const { default: byDefault, fastifyRealIp } = require('fastify-real-ip')

async function main () {
  for (const plugin of [realIp, byDefault, fastifyRealIp, import('fastify-real-ip')]) {
    const app = Fastify()
    await app.register(plugin)
    app.get('/', (request) => request.realAddress)
    const response = await fetch(await app.listen({ host: '127.0.0.1', port: 0 }))
    const { address, source } = await response.json()
    await app.close()
    strictEqual(address, '127.0.0.1')
    if (process.platform === 'linux') notStrictEqual(source, 'peer')
  }
}

main()
