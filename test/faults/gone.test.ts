import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import path from 'node:path'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import realIp, { type ConnectionMessage, type FastifyRealIpOptions, type RealAddress } from 'fastify-real-ip'
import { kinds, listen, oneLoopback } from '../kinds'
import type { Vanishing } from './vanish'

const linux = process.platform === 'linux'
const count = 20
const policies: Record<string, FastifyRealIpOptions> = {
  'no policy': {},
  'virtual servers, and any is trusted': { virtualServer: true, trustedPeers: 'any' },
  ...linux && { 'a list that rejects': { trustedPeers: ['127.0.0.9'], untrusted: 'reject', unverified: 'reject' } },
  'an admit that refuses': { admit: ({ address }) => address === '127.0.0.9' }
}

for (const kind of kinds) {
  for (const [policy, options] of Object.entries(policies)) {
    t.test(`${kind.name}: clients are gone before the server hears of them: ${policy}`, { skip: oneLoopback }, async (t) => {
      const app = kind.create()
      await app.register(realIp, options)
      app.get('/', (request) => request.realAddress)
      t.teardown(() => app.close())
      const port = await listen(app)
      const seen: RealAddress[] = []
      const all = new Promise<void>((resolve) => {
        // Those that are reset reach no listener of the server.
        const onConnection = (message: unknown) => {
          if (seen.push((message as ConnectionMessage).realAddress) === count) resolve()
        }
        subscribe('fastify-real-ip:connection', onConnection)
        t.teardown(() => unsubscribe('fastify-real-ip:connection', onConnection))
      })

      // This thread is at rest until all have come and gone: the kernel alone has heard of them.
      const gone = new Int32Array(new SharedArrayBuffer(4))
      const workerData: Vanishing = { port, count, gone }
      const worker = new Worker(path.join(__dirname, 'vanish.js'), { workerData })
      const exit = once(worker, 'exit')
      t.not(Atomics.wait(gone, 0, 0, 60_000), 'timed-out')
      t.equal(seen.length, 0)
      await all
      await exit

      const wrong = seen.filter(({ address }) => address !== undefined && !address.startsWith('127.0.5.'))
      t.same(wrong, [], 'none has a wrong address')
      if (linux && policy === 'no policy') {
        t.match(seen[0], { source: 'none', reason: 'closed', attempts: [{}, { source: 'getpeername', reason: 'ENOTCONN' }] })
      }
      const client = await kind.connect(port, { localAddress: '127.0.0.9' })
      t.match(await client.get('/'), { address: '127.0.0.9', port: client.localPort })
      await client.close()
    })
  }
}
