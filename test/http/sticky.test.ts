import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { FastifyInstance } from 'fastify'
import realIp, { encodeProxyHeader, type Stats } from 'fastify-real-ip'
import { holdSearches } from '../kernel/held-searches'
import { CLIENT, kinds } from '../kinds'
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
// Version 1: the primary passes text.
const header = encodeProxyHeader({ version: 1, source: { address: '203.0.113.7', port: 51234 }, destination: { address: '198.51.100.1', port: 443 } }).toString()
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

const answered = /"address":"127\.0\.0\.9".*"trust":"trusted"/

t.test('examined at once', async (t) => {
  const sticky = await start(t, { options: { ...list, unverified: 'reject' } })
  const { end } = await sticky.open(get)
  t.match(await end, answered)
})

t.test('held until the sender is found', async (t) => {
  const sticky = await start(t, { options: { ...list, unverified: 'reject' }, holds: true })
  let connections = 0
  for (const cut of [get.length, 9, 1]) {
    const { socket, end } = await sticky.open(get.slice(0, cut))
    if (cut < get.length) await new Promise((resolve) => socket.write(get.slice(cut), resolve))
    t.match(await sticky.stats(), { connections })
    sticky.send('release')
    t.match(await end, answered, `of which the primary has read ${cut} bytes`)
    t.match(await sticky.stats(), { connections: ++connections, rejected: 0 })
  }
})

t.test('of a long request the primary sends the rest too, while it is held and after', async (t) => {
  const sticky = await start(t, { options: list, holds: true })
  const body = 'x'.repeat(300_000)
  const { end } = await sticky.open('POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: text/plain\r\n')
  sticky.send({ next: `Content-Length: ${body.length}\r\n\r\n` })
  sticky.send({ next: body.slice(0, 200_000) })
  t.match(await sticky.stats(), { connections: 0 })
  sticky.send('release')
  sticky.send({ next: body.slice(200_000) })
  t.match(await end, /"trust":"trusted".*"length":300000/)
})

t.test('a client that ends its side while it is held is answered', async (t) => {
  const sticky = await start(t, { options: list, holds: true })
  const { socket, end } = await sticky.open(get)
  await new Promise<void>((resolve) => socket.end(resolve))
  t.match(await sticky.stats(), { connections: 0 })
  sticky.send('release')
  t.match(await end, answered)
})

t.test('a client that resets the connection while it is held ends nothing else', async (t) => {
  const sticky = await start(t, { options: list, holds: true })
  const leaving = await sticky.open(get)
  leaving.socket.resetAndDestroy()
  await leaving.end
  const staying = await sticky.open(get)
  sticky.send('release')
  t.match(await staying.end, answered)
  t.match(await sticky.stats(), { connections: 2 })
})

t.test('one that is refused ends the connection, not the worker that goes on with its handle', async (t) => {
  const strict = { sources: ['proxy-protocol'], trustedPeers: [CLIENT], untrusted: 'reject' } as const
  for (const holds of [false, true]) {
    const sticky = await start(t, { options: strict, holds })
    const { end } = await sticky.open(get, '127.0.0.66')
    sticky.send('release')
    t.equal(await end, 'reset')
    t.match(await sticky.stats(), { connections: 1, rejected: 1, reason: { 'untrusted-peer': 1 } }, 'the worker lives')
  }
})

t.test('a PROXY header among the first bytes', async (t) => {
  for (const holds of [false, true]) {
    const sticky = await start(t, { options: { ...list, sources: ['proxy-protocol'] }, holds })
    for (const cut of [header.length + get.length, header.length, 20]) {
      const all = header + get
      const { socket, end } = await sticky.open(all.slice(0, cut))
      if (cut < all.length) await new Promise((resolve) => socket.write(all.slice(cut), resolve))
      sticky.send('release')
      t.match(await end, /"address":"203\.0\.113\.7".*"trust":"trusted"/, `${holds ? 'held for its sender' : 'sender known'}, ${cut} bytes read`)
    }
  }
})

t.test('other ways to pass on the first bytes, on all kinds of servers', async (t) => {
  const ways: Record<string, (app: FastifyInstance, socket: net.Socket, first: Buffer) => void> = {
    'unshift() before' (app, socket, first) {
      socket.unshift(first)
      app.server.emit('connection', socket)
    },
    'unshift() after, with resume()' (app, socket, first) {
      app.server.emit('connection', socket)
      socket.unshift(first)
      socket.resume()
    },
    "'data' emitted by hand" (app, socket, first) {
      app.server.emit('connection', socket)
      socket.emit('data', first)
      socket.resume()
    }
  }
  for (const kind of kinds) {
    for (const [way, pass] of Object.entries(ways)) {
      const app = kind.create({ forceCloseConnections: true })
      await app.register(realIp, { ...list, unverified: 'reject' })
      app.get('/', (request) => request.realAddress)
      await app.ready()
      const front = net.createServer((socket) => {
        socket.once('data', (first) => {
          socket.pause()
          pass(app, socket, first)
        })
      }).listen(0, '127.0.0.1')
      await once(front, 'listening')
      const searches = holdSearches(t)
      const arriving = kind.connect((front.address() as AddressInfo).port, { localAddress: CLIENT })
      const got = arriving.then(async (client) => {
        const answer = await client.get('/') as object
        await client.close()
        return answer
      })
      await searches.waiting()
      for (let turn = 0; turn < 10; turn++) await setImmediate()
      searches.release()
      t.match(await got, { address: CLIENT, trust: 'trusted' }, `${kind.name}, ${way}`)
      front.close()
      await app.close()
    }
  }
})
