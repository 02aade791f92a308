import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import fastify from 'fastify'
import { answer } from './child'
import { variants, type Variant } from './variants'

// A server of one variant: node server.js VARIANT HOST

async function main ([name, host]: string[]): Promise<void> {
  const { options = {}, register, address } = variants[name as string] as Variant
  const app = fastify(options)
  await register?.(app)
  app.get('/', (request, reply) => { reply.send(address(request)) })
  // Room for those who connect faster than they are accepted: a dropped SYN is sent again a second later.
  await app.listen({ port: 0, host: host as string, backlog: 4096 })

  answer({
    port: () => (app.server.address() as AddressInfo).port,
    cpu () {
      const { user, system } = process.cpuUsage()
      return user + system
    },
    connections: () => new Promise((resolve, reject) => {
      app.server.getConnections((error, count) => error ? reject(error) : resolve(count))
    }),
    async heap () {
      // What is freed late, finalizers and weak references, takes more than one collection.
      for (let i = 0; i < 4; i++) {
        globalThis.gc?.()
        await sleep(20)
      }
      return process.memoryUsage().heapUsed
    }
  })
}

main(process.argv.slice(2))
