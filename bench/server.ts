import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import fastify, { type FastifyInstance } from 'fastify'
import { setDeferAccept } from '../test/proxy/defer-accept'
import { answer } from './child'
import { variants, type Variant } from './variants'

// A server of one variant: node server.js VARIANT HOST [PROTOCOL]

export type Protocol = 'http' | 'https' | 'h2c'

/** In bytes. */
export interface Memory {
  readonly heap: number
  readonly rss: number
}

const pem = (name: string) => readFileSync(join(__dirname, '../../test/fixtures', `${name}.pem`))

const create: Readonly<Record<Protocol, (options: object) => unknown>> = {
  http: (options) => fastify(options),
  https: (options) => fastify({ ...options, https: { key: pem('key'), cert: pem('cert') } }),
  h2c: (options) => fastify({ ...options, http2: true })
}

async function main ([name, host, protocol = 'http']: string[]): Promise<void> {
  const { options = {}, register, address } = variants[name as string] as Variant
  const app = create[protocol as Protocol](options) as FastifyInstance
  await register?.(app)
  app.get('/', (request, reply) => { reply.send(address(request)) })
  // Clients connect faster than the server accepts: a dropped SYN would be resent a second later.
  await app.listen({ port: 0, host: host as string, backlog: 4096 })

  answer({
    deferAccept () { setDeferAccept(app.server, true) },
    port: () => (app.server.address() as AddressInfo).port,
    cpu () {
      const { user, system } = process.cpuUsage()
      return user + system
    },
    connections: () => new Promise((resolve, reject) => {
      app.server.getConnections((error, count) => error ? reject(error) : resolve(count))
    }),
    async memory (): Promise<Memory> {
      // Finalizers and weak references take more than one collection.
      for (let i = 0; i < 4; i++) {
        globalThis.gc?.()
        await sleep(20)
      }
      const { heapUsed, rss } = process.memoryUsage()
      return { heap: heapUsed, rss }
    }
  })
}

main(process.argv.slice(2))
