import { once } from 'node:events'
import { readdirSync, readlinkSync } from 'node:fs'
import path from 'node:path'
import { Worker } from 'node:worker_threads'
import Fastify from 'fastify'
import t from 'tap'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { kinds, listen, oneLoopback } from '../kinds'

// That several serve side by side is in test/servers.test.ts; here one is terminated in the middle of it.

const [http] = kinds
const linux = process.platform === 'linux'
/** How many sockets this process has, unbound netlink ones too. */
const sockets = () => readdirSync('/proc/self/fd').filter((fd) => {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).startsWith('socket:')
  } catch {
    return false // the folder's own
  }
}).length

const program = path.join(__dirname, '../programs/server.js')

const policies: Array<[policy: string, plugin: FastifyRealIpOptions, source: string]> = [
  ['no policy', {}, linux ? 'getpeername' : 'peer'],
  ...linux ? [['a list', { trustedPeers: ['127.0.0.0/8'] }, 'transport-peer'] as [string, object, string]] : []
]

for (const [policy, plugin, source] of policies) {
  t.test(`a worker thread is terminated while it has connections; the others and the main thread serve on: ${policy}`, { skip: oneLoopback }, async (t) => {
    const before = linux ? sockets() : 0
    const app = Fastify()
    await app.register(realIp, plugin)
    app.get('/', (request) => request.realAddress)
    t.teardown(() => app.close())
    const workers = Array.from({ length: 3 }, () => new Worker(program, { workerData: { plugin } }))
    t.teardown(() => Promise.all(workers.map((worker) => worker.terminate())))
    const ports = await Promise.all(workers.map(async (worker) => (await once(worker, 'message'))[0].port as number))
    ports.push(await listen(app))

    const clients = await Promise.all(ports.flatMap((port, server) => Array.from({ length: 5 }, async (_, n) => {
      const address = `127.0.9.${server * 10 + n + 1}`
      const client = await http!.connect(port, { localAddress: address })
      client.socket.on('error', () => {})
      return { server, address, client, closed: once(client.socket, 'close') }
    })))
    const askAll = (among: typeof clients) => Promise.all(among.map(async ({ address, client }) => {
      t.match(await client.get('/'), { address, port: client.localPort, source })
    }))
    await askAll(clients)

    for (const [server, worker] of workers.entries()) {
      await worker.terminate()
      await Promise.all(clients.filter((client) => client.server === server).map(({ closed }) => closed))
      await askAll(clients.filter((client) => client.server > server))
      for (const port of ports.slice(server + 1)) {
        const client = await http!.connect(port, { localAddress: '127.0.9.99' })
        t.match(await client.get('/'), { address: '127.0.9.99', port: client.localPort, source })
        await client.close()
      }
    }
    await Promise.all(clients.map(({ client }) => client.close()))
    // Under a policy each server has tried sock_diag(7) at listen(): a thread that is ended cannot close what it has open.
    await app.close()
    if (linux) t.equal(sockets(), before, 'none is left open')
  })
}
