import { AsyncLocalStorage } from 'node:async_hooks'
import { execFileSync } from 'node:child_process'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { EventEmitter, once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { Hold, HELD_MAX } from '../../lib/http/hold'
import { type Diag, type Libc, loadLibc } from '../../lib/kernel/libc'
import { PeerSearch } from '../../lib/kernel/peer-search'
import { Judge } from '../../lib/trust/judge'
import { holdSearches } from '../kernel/held-searches'
import { CLIENT, type Kind, kinds, listen } from '../kinds'
import { gather } from '../proxy/gather'

if (process.platform !== 'linux') {
  t.plan(0, 'connections are held on Linux alone')
  process.exit()
}

const plain = kinds[0] as Kind
const libc = loadLibc() as Libc
const list = { trustedPeers: [CLIENT] }
const parsed = ['secureConnection', 'session', 'stream', 'request', 'upgrade', 'checkContinue', 'clientError', 'tlsClientError', 'unknownProtocol']

interface Served {
  readonly app: FastifyInstance
  readonly port: number
}

async function serve (t: Test, options: FastifyRealIpOptions = list, kind = plain, prepare: (app: FastifyInstance) => void = () => {}): Promise<Served> {
  const app = kind.create({ forceCloseConnections: true })
  prepare(app)
  await app.register(realIp, options)
  app.get('/', (request) => request.realAddress)
  t.teardown(() => app.close())
  return { app, port: await listen(app) }
}

/** A client that says all it has to say at once, and notes how it ends. */
function connect (port: number, says = ''): { socket: net.Socket, heard: () => string, ended: Promise<string> } {
  const socket = net.connect({ port, host: '127.0.0.1', localAddress: CLIENT })
  let heard = ''
  let code = 'closed'
  socket.on('data', (chunk) => { heard += String(chunk) })
  socket.on('error', (error: NodeJS.ErrnoException) => { code = String(error.code) })
  if (says !== '') socket.write(says)
  return { socket, heard: () => heard, ended: new Promise((resolve) => { socket.once('close', () => { resolve(code) }) }) }
}

const soon = () => new Promise((resolve) => setImmediate(resolve))
const get = 'GET / HTTP/1.1\r\nHost: x\r\n\r\n'
const last = 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'

t.test('no listener hears of a connection that is rejected, whenever and however it was added', async (t) => {
  for (const kind of kinds) {
    for (const when of ['at once', 'after a search']) {
      await t.test(`${kind.name}, ${when}`, async (t) => {
        const heard: string[] = []
        const hear = (name: string) => () => { heard.push(name) }
        const { app, port } = await serve(t, { trustedPeers: [CLIENT], missing: 'reject' }, kind, ({ server }) => {
          server.prependListener('connection', hear('before the plugin'))
        })
        app.server.prependListener('connection', hear('prepended'))
        app.server.prependOnceListener('connection', hear('once'))
        app.server.on('connection', hear('late'))
        const searches = when === 'at once' ? undefined : holdSearches(t)
        const { ended } = connect(port, get)
        await searches?.waiting()
        searches?.release()
        t.equal(await ended, 'ECONNRESET')
        t.same(heard, [])

        // And all hear of one that is not, of which they can ask at once.
        app.realIp.setTrustedPeers([])
        const asked: unknown[] = []
        app.server.prependListener('connection', (socket) => { asked.push(app.realIp.lookup(socket).trust) })
        const arriving = kind.connect(port, { localAddress: CLIENT })
        await searches?.waiting()
        searches?.release()
        const client = await arriving
        t.match(await client.get('/'), { address: CLIENT, trust: 'untrusted' })
        await client.close()
        t.same(heard, ['once', 'prepended', 'before the plugin', 'late'])
        t.same(asked, ['untrusted'])
      })
    }
  }
})

t.test('nothing of a connection that is held is parsed or answered, and then all of it is', async (t) => {
  for (const kind of kinds) {
    await t.test(kind.name, async (t) => {
      const heard: string[] = []
      const { app, port } = await serve(t, list, kind, ({ server }) => {
        for (const event of ['connection', ...parsed]) server.prependListener(event, () => { heard.push(event) })
      })
      const searches = holdSearches(t)
      const socket = net.connect({ port, host: '127.0.0.1', localAddress: CLIENT })
      await once(socket, 'connect')
      // Node's clients of TLS and of HTTP/2 speak at once, and wait for an answer then.
      const arriving = kind.connect(port, { localAddress: CLIENT })
      await searches.waiting(2)
      let received = 0
      socket.on('data', ({ length }) => { received += length })
      await new Promise((resolve) => socket.write(kind.name === 'h2c' ? 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n' : get, resolve))
      for (let turn = 0; turn < 10; turn++) await soon()
      t.same(heard, [])
      t.equal(received, 0)
      t.equal(app.realIp.stats().connections, 0)
      searches.release()
      const client = await arriving
      t.match(await client.get('/'), { address: CLIENT, port: client.localPort, trust: 'trusted' })
      t.equal(heard[0], 'connection')
      await client.close()
      socket.destroy()
    })
  }
  await t.test('an upgrade', async (t) => {
    const heard: string[] = []
    const { app, port } = await serve(t)
    app.server.on('upgrade', (request, socket) => {
      heard.push(app.realIp.lookup(request).trust, app.realIp.lookup(socket).trust)
      socket.end('HTTP/1.1 101 Switching Protocols\r\n\r\n')
    })
    const searches = holdSearches(t)
    const client = connect(port, 'GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
    await searches.waiting()
    for (let turn = 0; turn < 10; turn++) await soon()
    t.same(heard, [])
    searches.release()
    await client.ended
    t.match(client.heard(), /^HTTP\/1\.1 101 /)
    t.same(heard, ['trusted', 'trusted'])
  })
})

t.test('pipelined requests on a connection that is held cost no more than others', async (t) => {
  const REQUESTS = 40_000
  let decisions = 0
  let holds = 0
  const { decide } = Judge.prototype
  const { take } = Hold.prototype
  t.teardown(() => {
    Judge.prototype.decide = decide
    Hold.prototype.take = take
  })
  Judge.prototype.decide = function (evidence) {
    decisions++
    return decide.call(this, evidence)
  }
  Hold.prototype.take = function (...args) {
    holds++
    return take.apply(this, args)
  }
  let requests = 0
  const { port } = await serve(t, list, plain, (app) => {
    app.server.on('request', () => { requests++ })
    app.get('/short', (_request, reply) => { reply.send('') })
  })
  const searches = holdSearches(t)
  const client = net.connect({ port, host: '127.0.0.1', localAddress: CLIENT })
  let answers = 0
  let rest = ''
  client.on('data', (chunk) => {
    const parts = (rest + chunk.toString('latin1')).split('HTTP/1.1 200')
    answers += parts.length - 1
    rest = parts.at(-1)!.slice(-16)
  })
  client.write(get.replace('/', '/short').repeat(REQUESTS - 1) + last.replace('/', '/short'))
  await searches.waiting()
  for (let turn = 0; turn < 10; turn++) await soon()
  t.equal(requests, 0)
  searches.release()
  await once(client, 'close')
  t.same([requests, answers], [REQUESTS, REQUESTS])
  // One for the connection, one for each request.
  t.same([decisions, holds], [REQUESTS + 1, 1])
})

t.test('a client that ends the connection while it is held, before it has said a word, is not handed over', async (t) => {
  for (const policy of [list, { ...list, unverified: 'reject' }] as const) {
    const { app, port } = await serve(t, policy)
    let connections = 0
    app.server.on('connection', () => { connections++ })
    const searches = holdSearches(t)
    const { socket, ended } = connect(port)
    await searches.waiting()
    await new Promise<void>((resolve) => socket.end(resolve))
    searches.release()
    await ended
    t.equal(connections, 0)
    t.match(app.realIp.stats(), { connections: 1, trust: { unverified: 1 } })

    const speaking = connect(port)
    await searches.waiting()
    await new Promise<void>((resolve) => speaking.socket.end(get, resolve))
    searches.release()
    await speaking.ended
    t.match(speaking.heard(), /^HTTP\/1\.1 200 /, 'who has said all is answered')
    t.equal(connections, 1)
  }
})

t.test('a client that resets the connection while it is held ends nothing else', async (t) => {
  const { app, port } = await serve(t)
  let connections = 0
  app.server.on('connection', () => { connections++ })
  const searches = holdSearches(t)
  const leaving = [connect(port, get), connect(port), connect(port, get)]
  const staying = [connect(port, last), connect(port, last)]
  await searches.waiting(5)
  for (const { socket } of leaving) {
    socket.resetAndDestroy()
  }
  await Promise.all(leaving.map(({ ended }) => ended))
  searches.release()
  await Promise.all(staying.map(({ ended }) => ended))
  for (const { heard } of staying) t.match(heard(), /"trust":"trusted"/)
  // What was said before a reset is there to be read, as ever: HTTP learns of the end itself.
  t.equal(connections, 4)
  t.equal(app.realIp.stats().connections, 5)
})

t.test('after its time a connection is unverified, whatever is found then', async (t) => {
  const timers: Array<() => void> = []
  const { setTimeout } = globalThis
  const searches = holdSearches(t)
  const found = { family: 'IPv4', port: 1, w0: 0, w1: 0, w2: 0, w3: 0x7f000009 } as const
  for (const [unverified, says] of [['ignore', /"trust":"unverified"/], ['believe', /"trust":"unverified"/], ['reject', /^$/]] as const) {
    const { app, port } = await serve(t, { trustedPeers: ['127.0.0.0/8'], unverified })
    const { restore } = t.intercept(globalThis, 'setTimeout', {
      value (callback: () => void, milliseconds: number) {
        if (milliseconds !== 5000) return setTimeout(callback, milliseconds)
        timers.push(callback)
        return setTimeout(() => {}, milliseconds)
      }
    })
    const { ended, heard } = connect(port, last)
    await searches.waiting()
    restore()
    t.equal(timers.length, 1)
    timers.splice(0)[0]?.()
    t.equal(await ended, unverified === 'reject' ? 'ECONNRESET' : 'closed')
    t.match(heard(), says, unverified)
    searches.release(found)
    await soon()
    t.match(app.realIp.stats(), { connections: 1, trust: { unverified: 1 }, rejected: unverified === 'reject' ? 1 : 0 })
  }
})

t.test('listeners run in the async context of the connection, held or not', async (t) => {
  for (const kind of kinds) {
    await t.test(kind.name, async (t) => {
      const storage = new AsyncLocalStorage<string>()
      const contexts: Array<string | undefined> = []
      const app = kind.create({ forceCloseConnections: true })
      await app.register(realIp, list)
      app.get('/', (request) => request.realAddress)
      app.server.on('connection', () => { contexts.push(storage.getStore()) })
      t.teardown(() => app.close())
      const port = await storage.run('the server', () => listen(app))
      const first = await kind.connect(port, { localAddress: CLIENT })
      const searches = holdSearches(t)
      const second = kind.connect(port, { localAddress: CLIENT })
      await searches.waiting()
      storage.run('the search', () => { searches.release() })
      for (const client of [first, await second]) {
        t.match(await client.get('/'), { trust: 'trusted' })
        await client.close()
      }
      t.same(contexts, ['the server', 'the server'])
    })
  }
})

t.test('admit and the diagnostics channel are called in the async context of the connection, held or not', async (t) => {
  const storage = new AsyncLocalStorage<string>()
  const contexts: Array<[what: string, context: string | undefined]> = []
  const note = (what: string) => { contexts.push([what, storage.getStore()]) }
  const published = () => { note('published') }
  subscribe('fastify-real-ip:connection', published)
  t.teardown(() => unsubscribe('fastify-real-ip:connection', published))
  const app = plain.create({ forceCloseConnections: true })
  await app.register(realIp, {
    ...list,
    admit () {
      note('asked')
      return true
    }
  })
  app.get('/', (request) => request.realAddress)
  t.teardown(() => app.close())
  const port = await storage.run('the server', () => listen(app))
  await connect(port, last).ended
  const searches = holdSearches(t)
  const held = connect(port, last)
  await searches.waiting()
  storage.run('the search', () => { searches.release() })
  await held.ended
  t.match(held.heard(), /"trust":"trusted"/)
  const once = [['asked', 'the server'], ['published', 'the server']]
  t.same(contexts, [...once, ...once])
})

t.test('with too many connections that are held the oldest is unverified, and the others wait', async (t) => {
  const { app, port } = await serve(t)
  const searches = holdSearches(t)
  const oldest = connect(port, last)
  await searches.waiting()
  await gather(t, { count: HELD_MAX - 1, port, localAddress: CLIENT, bytes: '' })
  await searches.waiting(HELD_MAX)
  t.equal(oldest.heard(), '')
  const next = connect(port, last)
  t.equal(await oldest.ended, 'closed')
  t.match(oldest.heard(), /"trust":"unverified"/)
  t.match(app.realIp.stats(), { connections: 1, trust: { unverified: 1 } })
  searches.release()
  await next.ended
  t.match(next.heard(), /"trust":"trusted"/)
  t.match(app.realIp.stats(), { connections: HELD_MAX + 1, trust: { trusted: HELD_MAX, unverified: 1 } })
})

t.test('close() ends what is held at once, and nothing is held after it', async (t) => {
  const { app, port } = await serve(t)
  let connections = 0
  app.server.on('connection', () => { connections++ })
  const searches = holdSearches(t)
  const held = [connect(port, get), connect(port)]
  await searches.waiting(2)
  const closing = app.close()
  t.same(await Promise.all(held.map(({ ended }) => ended)), ['ECONNRESET', 'ECONNRESET'])
  await closing
  searches.release()
  await soon()
  t.equal(await connect(port).ended, 'ECONNREFUSED')
  t.equal(connections, 0)
})

t.test('who comes between preClose and the end is not held', async (t) => {
  const app = plain.create({ forceCloseConnections: true })
  await app.register(realIp, list)
  const searches = holdSearches(t)
  let ended = ''
  app.addHook('preClose', async () => {
    const { port } = app.server.address() as AddressInfo
    ended = await connect(port, get).ended
  })
  await listen(app)
  await app.close()
  t.equal(ended, 'ECONNRESET')
  t.equal(searches.size, 1)
})

t.test('what a listener throws while connections are handed over strands nobody else', async (t) => {
  const program = `
    const { once } = require('node:events')
    const net = require('node:net')
    const Fastify = require('fastify')
    const realIp = require(${JSON.stringify(require.resolve('../../lib/index'))})
    const { PeerSearch } = require(${JSON.stringify(require.resolve('../../lib/kernel/peer-search'))})
    const { SynReader } = require(${JSON.stringify(require.resolve('../../lib/kernel/saved-syn'))})
    const waiting = []
    SynReader.prototype.read = () => false
    // As a dump does it: all in one go.
    PeerSearch.prototype.ask = (_fd, found) => {
      if (waiting.push(found) === 4) setImmediate(() => { for (const each of waiting) each({ family: 'IPv4', port: 1, w0: 0, w1: 0, w2: 0, w3: 0x7f000009 }) })
    }
    process.on('uncaughtException', ({ message }) => { console.log('threw', message) })
    async function main () {
      const app = Fastify({ forceCloseConnections: true })
      await app.register(realIp, { trustedPeers: ['127.0.0.9'] })
      app.get('/', ({ realAddress: { trust } }) => trust)
      let n = 0
      app.server.prependListener('connection', () => { if (n++ % 2 === 0) throw new Error('a listener') })
      await app.listen({ port: 0, host: '127.0.0.1' })
      let ended = 0
      for (let i = 0; i < 4; i++) {
        const socket = net.connect(app.server.address().port, '127.0.0.1')
        socket.write(${JSON.stringify(last)})
        socket.on('data', (chunk) => {
          console.log('answered', String(chunk).split('\\r\\n').at(-1))
          if (++ended === 2) process.exit()
        })
      }
    }
    main()`
  const lines = execFileSync(process.execPath, ['-e', program], { encoding: 'utf8', timeout: 20_000 }).trim().split('\n')
  t.same(lines.filter((line) => line.startsWith('threw')), ['threw a listener', 'threw a listener'])
  t.same(lines.filter((line) => line.startsWith('answered')), ['answered trusted', 'answered trusted'])
})

/** Counts netlink sockets and questions. */
function countDiag (t: Test): { opened: number, asked: number } {
  const { openDiag } = libc
  const counts = { opened: 0, asked: 0 }
  libc.openDiag = () => {
    counts.opened++
    const diag = openDiag() as Diag
    return {
      ...diag,
      send (length) {
        counts.asked++
        return diag.send(length)
      }
    }
  }
  t.teardown(() => { libc.openDiag = openDiag })
  return counts
}

t.test('a connection that another server has accepted and emits here is examined by sock_diag', async (t) => {
  for (const kind of kinds) {
    const counts = countDiag(t)
    const app = kind.create({ forceCloseConnections: true })
    await app.register(realIp, { ...list, unverified: 'reject' })
    app.get('/', (request) => request.realAddress)
    await app.ready()
    const front = net.createServer((socket) => { app.server.emit('connection', socket) }).listen(0, '127.0.0.1')
    t.teardown(() => {
      front.close()
      return app.close()
    })
    await once(front, 'listening')
    const { port } = front.address() as AddressInfo
    const client = await kind.connect(port, { localAddress: CLIENT })
    t.match(await client.get('/'), {
      address: CLIENT, port: client.localPort, trust: 'trusted', reason: 'no-toa', transportPeer: { address: CLIENT, port: client.localPort }
    }, kind.name)
    await client.close()
    t.equal(counts.asked, 1)
    const stranger = await kind.connect(port, { localAddress: '127.0.0.8' })
    t.match(await stranger.get('/'), { address: '127.0.0.8', trust: 'untrusted' })
    await stranger.close()
    t.match(app.realIp.stats(), { connections: 2, rejected: 0 })
  }
})

t.test('a connection that the primary has read the first bytes of, as socket.io does it', async (t) => {
  const app = plain.create({ forceCloseConnections: true })
  await app.register(realIp, { ...list, unverified: 'reject' })
  app.get('/', (request) => request.realAddress)
  await app.ready()
  const front = net.createServer((socket) => {
    socket.once('data', (data) => {
      socket.pause()
      app.server.emit('connection', socket)
      socket.emit('data', data)
      socket.resume()
    })
  }).listen(0, '127.0.0.1')
  t.teardown(() => {
    front.close()
    return app.close()
  })
  await once(front, 'listening')
  const { heard, ended } = connect((front.address() as AddressInfo).port, last)
  await ended
  t.match(heard(), /"trust":"trusted"/)
})

t.test('what has no descriptor has no known sender', async (t) => {
  const { app } = await serve(t, { trustedPeers: ['0.0.0.0/0', '::/0'] })
  class Connection extends EventEmitter {
    remoteAddress = CLIENT
    destroyed = false
    destroy () { this.destroyed = true }
  }
  const listeners = app.server.listeners('connection') as Array<(socket: net.Socket) => void>
  app.server.removeAllListeners('connection')
  for (const _handle of [undefined, null, {}, { fd: -1, getpeername () {} }, { fd: 3 }]) {
    const connection = Object.assign(new Connection(), { _handle })
    app.server.emit('connection', connection)
    t.match(app.realIp.lookup(connection as never), { address: undefined, trust: 'unverified', reason: 'unverified-peer' })
  }
  for (const listener of listeners) app.server.on('connection', listener)
})

t.test('clients on loopback cost no netlink exchange where there is no list', async (t) => {
  for (const kind of kinds) {
    const counts = countDiag(t)
    const { port } = await serve(t, {}, kind)
    for (let n = 0; n < 3; n++) {
      const client = await kind.connect(port, { localAddress: `127.0.0.${20 + n}` })
      t.match(await client.get('/'), { address: `127.0.0.${20 + n}`, source: 'getpeername', trust: 'unchecked' })
      await client.close()
    }
    t.same(counts, { opened: 0, asked: 0 }, kind.name)
  }
})

t.test('a connection that cannot be examined is reset, and that is logged', async (t) => {
  const errors: unknown[] = []
  const { ask } = PeerSearch.prototype
  const searches = holdSearches(t)
  const failure = new Error('no memory')
  PeerSearch.prototype.ask = () => { throw failure }
  t.teardown(() => { PeerSearch.prototype.ask = ask })
  const logger = { level: 'warn', fatal () {}, error (...line: unknown[]) { errors.push(line) }, warn () {}, info () {}, debug () {}, trace () {}, silent () {}, child: () => logger }
  const app = plain.create({ loggerInstance: logger as never, forceCloseConnections: true })
  await app.register(realIp, list)
  t.teardown(() => app.close())
  let connections = 0
  app.server.on('connection', () => { connections++ })
  t.equal(await connect(await listen(app), get).ended, 'ECONNRESET')
  t.equal(connections, 0)
  t.match(errors, [[{ err: failure }, /^fastify-real-ip: a connection could not be examined/]])
  t.equal(searches.size, 0)
})

t.test('a connection that is emitted again while it is held is handed over once', async (t) => {
  const searches = holdSearches(t)
  const { app, port } = await serve(t)
  let handedOver = 0
  const emitted: net.Socket[] = []
  const { emit } = app.server
  app.server.emit = function (this: net.Server, name: string, ...rest: unknown[]) {
    if (name === 'connection') emitted.push(rest[0] as net.Socket)
    return (emit as (...all: unknown[]) => boolean).call(this, name, ...rest)
  } as typeof emit
  app.server.on('connection', () => { handedOver++ })
  const client = connect(port, last)
  await searches.waiting()
  app.server.emit('connection', emitted[0]!)
  t.equal(handedOver, 0)
  searches.release()
  t.equal(await client.ended, 'closed')
  t.match(client.heard(), /"trust":"trusted"/)
  t.equal(handedOver, 1)
})

t.test('what cannot be examined after a search is reset, and ends nothing else', async (t) => {
  const searches = holdSearches(t)
  const { app, port } = await serve(t)
  const { decide } = Judge.prototype
  t.teardown(() => { Judge.prototype.decide = decide })
  let throws = true
  Judge.prototype.decide = function (evidence) {
    if (throws) throw new Error('a bug')
    return decide.call(this, evidence)
  }
  const client = connect(port, last)
  await searches.waiting()
  searches.release()
  t.equal(await client.ended, 'ECONNRESET')
  throws = false
  const other = connect(port, last)
  await searches.waiting()
  searches.release()
  await other.ended
  t.match(other.heard(), /"trust":"trusted"/)
  t.equal(app.realIp.stats().connections, 1)
})
