import cluster, { type Worker } from 'node:cluster'
import { once } from 'node:events'
import type { Test } from 'tap'
import { kinds } from '../kinds'
import type { Order, Outcome } from '../node/worker'
import { inLab } from './in-lab'

// Workers of node:cluster whose primary accepts, beside a module that rewrites getpeername: the exact lookup finds
// nothing there, and a dump of sock_diag has to tell the sender.

const [plain] = kinds
const host = '127.0.0.1'
const claim = { address: '203.0.113.7', port: 51234 }
const BALANCER = '127.0.0.20'
const STRANGER = '127.0.0.40'

async function work (t: Test, order: Order): Promise<number> {
  cluster.setupPrimary({ exec: require.resolve('../node/worker'), args: [] })
  const workers: Worker[] = [1, 2].map(() => cluster.fork({ FASTIFY_REAL_IP_ORDER: JSON.stringify(order) }))
  t.teardown(() => Promise.all(workers.map(async (worker) => {
    if (worker.isDead()) return
    worker.send('end')
    await once(worker, 'exit')
  })))
  const [first] = await Promise.all(workers.map(async (worker) => (await once(worker, 'message') as [Outcome])[0]))
  return first?.port as number
}

inLab('round-robin workers wait for the dump, and believe the right ones', async (t, lab) => {
  const balancer = await lab.client(claim)
  for (const [played, source] of [[{}, 'vtoa'], [{ getsockopt: false }, 'getpeername'], [{ as: 'dpvs' }, 'getpeername']] as const) {
    await t.test(JSON.stringify(played), async (t) => {
      lab.module.start(played)
      lab.enterServer()
      const port = await work(t, { plugin: { trustedPeers: [BALANCER], unverified: 'reject' }, listen: { host, port: 0 } })
      balancer.enter()
      // At once, so that some have to wait for the next dump.
      await Promise.all(Array.from({ length: 24 }, async (_, n) => {
        const localAddress = n % 2 === 0 ? BALANCER : STRANGER
        const client = await plain!.connect(port, { localAddress })
        const transportPeer = { address: localAddress, port: client.localPort }
        t.match(await client.get('/'), localAddress === BALANCER
          ? { ...claim, source, trust: 'trusted', transportPeer }
          : { ...transportPeer, source: 'transport-peer', trust: 'untrusted', reason: 'untrusted-peer', transportPeer })
        await client.close()
      }))
      lab.enterServer()
    })
  }
})

inLab('round-robin workers behind HTTP proxies alone', async (t, lab) => {
  lab.module.start()
  const balancer = await lab.client({ address: BALANCER, port: 51234 })
  lab.enterServer()
  const port = await work(t, { plugin: { forwarded: { trust: [BALANCER] } }, listen: { host, port: 0 } })
  balancer.enter()
  for (let n = 0; n < 8; n++) {
    const localAddress = n % 2 === 0 ? BALANCER : STRANGER
    const client = await plain!.connect(port, { localAddress })
    const answer = await client.get('/', { 'x-forwarded-for': '203.0.113.8' })
    const address = localAddress === BALANCER ? '203.0.113.8' : STRANGER
    t.match(answer, { address, transportPeer: { address: localAddress, port: client.localPort } })
    await client.close()
  }
  lab.enterServer()
})
