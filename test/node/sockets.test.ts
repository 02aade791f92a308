import t from 'tap'
import { once } from 'node:events'
import net from 'node:net'
import realIp from 'fastify-real-ip'
import type { RealAddress } from 'fastify-real-ip'
import { acceptedSocket, fdOf, keepBytes, listeningFdOf, reset } from '../../lib/node/sockets'
import { CLIENT, kinds, listen, oneLoopback } from '../kinds'

const linux = process.platform === 'linux'
const kernel = linux ? 'getpeername' : 'peer'

for (const kind of kinds) {
  t.test(kind.name, async (t) => {
    t.test('every request of a connection gets the address and port the client has', { skip: oneLoopback }, async (t) => {
      const app = kind.create()
      await app.register(realIp)
      app.get('/', (request) => ({ realIp: request.realIp, realAddress: request.realAddress }))
      t.teardown(() => app.close())
      const port = await listen(app)

      const clients = await Promise.all(Array.from({ length: 20 }, (_, n) =>
        kind.connect(port, { localAddress: `127.0.0.${n + 10}` })))
      for (let round = 0; round < 3; round++) {
        const answers = await Promise.all(clients.map((client) => client.get('/')))
        answers.forEach((answer, n) => {
          t.equal(answer.realIp, `127.0.0.${n + 10}`)
          t.match(answer.realAddress, {
            address: `127.0.0.${n + 10}`, port: clients[n]?.localPort, family: 'IPv4', source: kernel
          })
        })
      }
      await Promise.all(clients.map((client) => client.close()))
    })

    t.test('a late reader gets the address of its own connection, not of the one that has its descriptor now', async (t) => {
      const app = kind.create()
      await app.register(realIp)
      const waiting: Array<() => RealAddress> = []
      const arrived: Array<() => void> = []
      app.get('/wait', (request) => {
        waiting.push(() => {
          t.equal(request.realIp, request.realAddress.address)
          return request.realAddress
        })
        arrived.shift()?.()
        return new Promise(() => {})
      })
      app.get('/', (request) => ({ realIp: request.realIp }))
      t.teardown(() => app.close())
      const port = await listen(app)
      const sockets: net.Socket[] = []
      app.server.on('connection', (socket: net.Socket) => sockets.push(socket))

      const gone = await kind.connect(port, { localAddress: CLIENT })
      const { localPort } = gone
      const asked = new Promise<void>((resolve) => arrived.push(resolve))
      gone.get('/wait').catch(() => {})
      await asked
      const socket = sockets[0] as net.Socket
      const fd = (socket as any)._handle.fd
      const closed = new Promise((resolve) => socket.once('close', resolve))
      gone.socket.on('error', () => {})
      gone.socket.resetAndDestroy()
      await closed

      // New connections until one has the descriptor of the dead one.
      const later = []
      let reused = false
      while (!reused && later.length < 50) {
        later.push(await kind.connect(port))
        await later.at(-1)?.get('/')
        reused = sockets.slice(1).some((socket) => (socket as any)._handle?.fd === fd)
      }
      t.ok(reused, 'the descriptor was reused')
      const late = waiting[0]?.()
      t.match(late, { address: CLIENT, port: localPort, source: kernel })
      await Promise.all(later.map((client) => client.close()))
    })

    t.test('lookup takes every object of a connection', async (t) => {
      const app = kind.create()
      await app.register(realIp)
      let session: any
      let secure: any
      let connection: any
      app.server.on('session', (s: unknown) => { session = s })
      app.server.on('secureConnection', (s: unknown) => { secure = s })
      app.server.on('connection', (s: unknown) => { connection = s })
      app.get('/', (request) => {
        const raw = request.raw as any
        const objects = [request, raw, raw.socket, raw.stream, raw.stream?.session, raw.stream?.session?.socket,
          session, session?.socket, secure, connection]
        return objects.map((object) => object === undefined ? '-' : app.realIp.lookup(object).address)
      })
      t.teardown(() => app.close())
      const client = await kind.connect(await listen(app), { localAddress: CLIENT })
      const answers: string[] = await client.get('/')
      t.equal(answers[0], CLIENT)
      t.same([...new Set(answers)].filter((answer) => answer !== '-'), [CLIENT])
      t.match(app.realIp.lookup(connection), { address: CLIENT, port: client.localPort, source: kernel })
      await client.close()
    })
  })
}

t.test('what the server emits besides: a session that is dead already, and a connection twice', { skip: !linux && 'not Linux' }, async (t) => {
  const [http] = kinds
  const app = http!.create()
  await app.register(realIp, { trustedPeers: ['127.0.0.0/8'] })
  app.get('/', (request) => request.realAddress)
  t.teardown(() => app.close())
  const port = await listen(app)
  let emitted = 0
  app.server.prependListener('connection', (socket) => {
    // Its saved SYN can be read once: the first answer stands. HTTP must not see it twice.
    if (emitted++ > 0) return
    const http = app.server.listeners('connection').slice(1) as Array<(socket: unknown) => void>
    for (const listener of http) app.server.removeListener('connection', listener)
    for (let n = 0; n < 2; n++) app.server.emit('connection', socket)
    for (const listener of http) app.server.on('connection', listener)
  })
  const client = await http!.connect(port, { localAddress: '127.0.0.61' })
  t.match(await client.get('/'), { address: '127.0.0.61', trust: 'trusted', transportPeer: { port: client.localPort } })
  t.equal(emitted, 3)
  t.equal(app.realIp.stats().connections, 1)
  await client.close()

  const dead = { get socket () { throw new Error('ERR_HTTP2_SOCKET_UNBOUND') } }
  t.doesNotThrow(() => app.server.emit('session', dead))
  t.match(app.realIp.lookup(dead as any), { source: 'none', reason: 'unverified-peer' })
})

t.test("require: true with 'saved-syn', which needs no module", { skip: !linux && 'not Linux' }, async (t) => {
  const app = kinds[0]!.create()
  t.teardown(() => app.close())
  await app.register(realIp, { require: true, sources: ['saved-syn'], toa: 'alibaba', trustedPeers: [] })
  t.ok(app.hasDecorator('realIp'))
})

t.test('what has no descriptor, or nothing at all', async (t) => {
  t.equal(fdOf({ _handle: { getpeername () {} } }), -1, 'as on Windows')
  t.equal(fdOf({ _handle: { fd: 7 } }), -1, 'a pipe')
  for (const nothing of [undefined, null]) t.equal(acceptedSocket(nothing), nothing)
  t.equal(listeningFdOf(net.createServer()), -1, 'not listening')
  t.equal(listeningFdOf({ _handle: {} }), -1, 'a cluster worker')
  t.doesNotThrow(() => reset({}))
})

t.test('what cannot be reset is destroyed', async (t) => {
  let destroyed = 0
  const destroy = () => { destroyed++ }
  reset({ destroy })
  reset({ destroy, resetAndDestroy () { throw new TypeError('a pipe') } })
  t.equal(destroyed, 2)
  t.doesNotThrow(() => reset({ resetAndDestroy () { throw new TypeError('a pipe') } }))
})

t.test('bytes that held connections keep are limited, those of all together', async (t) => {
  const MiB = 1024 * 1024
  const hold = () => {
    const socket = new net.Socket()
    t.teardown(() => socket.destroy())
    const held = { socket, tooMany: 0, giveBack: () => {} }
    held.giveBack = keepBytes(socket, () => { held.tooMany++ })
    return held
  }
  const a = hold()
  const b = hold()
  a.socket.emit('data', Buffer.alloc(40 * MiB))
  b.socket.emit('data', Buffer.alloc(24 * MiB))
  t.same([a.tooMany, b.tooMany], [0, 0])
  b.socket.emit('data', Buffer.alloc(1))
  t.same([a.tooMany, b.tooMany], [0, 1], 'the one that keeps more')
  const closed = once(a.socket, 'close')
  a.socket.destroy()
  await closed
  b.socket.emit('data', Buffer.alloc(39 * MiB))
  t.equal(b.tooMany, 1, 'one that has closed keeps nothing')
  b.giveBack()
  t.equal(b.socket.readableLength, 63 * MiB + 1, 'nothing is lost')
  const c = hold()
  c.socket.push(Buffer.alloc(64 * MiB + 1))
  await once(c.socket, 'readable')
  t.equal(c.tooMany, 1, 'what is pushed counts')
  c.giveBack()
  c.giveBack()
  const d = hold()
  d.socket.emit('data', Buffer.alloc(64 * MiB))
  t.equal(d.tooMany, 0)
  d.giveBack()
})

t.test('headers that are none do not make lookup() throw', async (t) => {
  const app = kinds[0]!.create()
  await app.register(realIp, { trustedPeers: 'any', forwarded: { trust: ['127.0.0.1'] } })
  t.teardown(() => app.close())
  for (const rawHeaders of [[null, 'x'], [1], {}, 7]) {
    t.match(app.realIp.lookup({ rawHeaders, remoteAddress: '127.0.0.1' } as never), { address: '127.0.0.1' })
  }
})
