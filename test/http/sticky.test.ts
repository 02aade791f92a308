import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { Stats } from 'fastify-real-ip'
import { CLIENT } from '../kinds'
import type { Order, Setting } from './sticky-worker'

// socket.io-sticky (@socket.io/sticky), which is not installed here, does this: the primary accepts a connection, reads its
// first bytes, pauses it, and sends a worker the socket together with these bytes. The worker emits 'connection' on its HTTP
// server, gives the bytes to socket._handle.onread() in the same turn, and calls socket.resume(). Of a long request the
// primary keeps a copy of the socket, reads on, and sends each further part, which the worker gives to onread() too.

if (process.platform !== 'linux') {
  t.plan(0, 'connections are held on Linux alone')
  process.exit()
}

const list = { trustedPeers: [CLIENT] }
const get = 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'

interface Sticky {
  /** Opens a connection that says this at once, and resolves when the worker has emitted it. */
  open (says: string, localAddress?: string): Promise<{ readonly socket: net.Socket, readonly end: Promise<string> }>
  send (order: Order): void
  stats (): Promise<Stats>
  readonly worker: ChildProcess
}

async function start (t: Test, setting: Setting): Promise<Sticky> {
  const worker = fork(join(__dirname, 'sticky-worker.js'), { env: { ...process.env, FASTIFY_REAL_IP_STICKY: JSON.stringify(setting) } })
  t.same(await once(worker, 'message'), ['ready', undefined])
  const primary = net.createServer((socket) => {
    socket.on('error', () => {}).once('data', (first) => {
      socket.pause()
      worker.send({ first: first.toString() } satisfies Order, socket)
    })
  }).listen(0, '127.0.0.1')
  await once(primary, 'listening')
  const { port } = primary.address() as AddressInfo
  t.teardown(async () => {
    primary.close()
    if (worker.exitCode === null && worker.connected) {
      worker.send('end')
      await once(worker, 'exit')
    }
  })
  return {
    worker,
    send (order) { worker.send(order) },
    async stats () {
      worker.send('stats')
      const [stats] = await once(worker, 'message')
      return stats as Stats
    },
    async open (says, localAddress = CLIENT) {
      const socket = net.connect({ port, host: '127.0.0.1', localAddress })
      let heard = ''
      socket.on('error', () => {}).on('data', (part) => { heard += String(part) })
      socket.write(says)
      const end = new Promise<string>((resolve) => { socket.once('close', () => { resolve(heard === '' ? 'reset' : heard) }) })
      await Promise.race([once(worker, 'message'), once(worker, 'exit')])
      return { socket, end }
    }
  }
}

t.test('examined at once', async (t) => {
  const sticky = await start(t, { options: { ...list, unverified: 'reject' } })
  const { end } = await sticky.open(get)
  t.match(await end, /"address":"127\.0\.0\.9".*"trust":"trusted"/)
})

t.test('held until the sender is found', async (t) => {
  const sticky = await start(t, { options: { ...list, unverified: 'reject' }, holds: true })
  for (const cut of [get.length, 9]) {
    const { socket, end } = await sticky.open(get.slice(0, cut))
    if (cut < get.length) await new Promise((resolve) => socket.write(get.slice(cut), resolve))
    t.match(await sticky.stats(), { connections: 0 })
    sticky.send('release')
    t.match(await end, /"address":"127\.0\.0\.9".*"trust":"trusted"/, `of which the primary has read ${cut} bytes`)
    t.match(await sticky.stats(), { connections: 1, rejected: 0 })
  }
})
