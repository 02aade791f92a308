import { once } from 'node:events'
import { unlinkSync } from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import net, { type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import tls from 'node:tls'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import realIp, { type FastifyRealIpOptions, type RealAddress, type TransportPeer, type TrustedPeers } from 'fastify-real-ip'
import { PeerSearch } from '../../lib/kernel/peer-search'
import { SynReader } from '../../lib/kernel/saved-syn'
import { duplexPair } from '../duplex-pair'
import { holdSearches } from '../kernel/held-searches'
import { cert, CLIENT, key, kinds, listen } from '../kinds'
import { logOf } from './log'

const linux = process.platform === 'linux'
const onLinux = { skip: !linux && 'not Linux' }

async function create (t: Test, options: FastifyRealIpOptions, fastify: object = {}): Promise<FastifyInstance> {
  const app = Fastify(fastify)
  await app.register(realIp, options)
  app.get('/', (request) => request.realAddress)
  t.teardown(() => app.close())
  return app
}

t.test('inject() plays the network: its remote address is the transport peer', async (t) => {
  const forwarded = { trust: ['10.0.0.0/8', '172.16.0.0/12'] }
  const inject = async (trustedPeers: TrustedPeers, remoteAddress: string, headers = {}): Promise<RealAddress> =>
    (await (await create(t, { trustedPeers, forwarded })).inject({ url: '/', remoteAddress, headers })).json()
  const header = { 'x-forwarded-for': '198.51.100.1, 203.0.113.7' }

  t.same(await inject(['10.0.0.0/8'], '10.0.0.2'), {
    address: '10.0.0.2', family: 'IPv4', source: 'transport-peer', reason: 'no-toa', trust: 'trusted', transportPeer: { address: '10.0.0.2' }, attempts: []
  })
  t.match(await inject(['10.0.0.0/8'], '10.0.0.2', header), { address: '10.0.0.2', reason: 'no-toa' },
    'a trusted peer that fell back to itself starts no walk')
  t.match(await inject(['10.0.0.0/8'], '172.16.0.1', header), {
    address: '203.0.113.7', source: 'forwarded', trust: 'trusted', via: { address: '172.16.0.1', trust: 'untrusted' }, transportPeer: { address: '172.16.0.1' }
  }, 'a peer that is not in the list may be a proxy')
  t.match(await inject(['10.0.0.0/8'], '203.0.113.9', header), { address: '203.0.113.9', trust: 'untrusted', via: undefined })
  t.match(await inject('any', '10.0.0.2', header), { address: '203.0.113.7', trust: 'trusted', via: { address: '10.0.0.2', trust: 'trusted' } })
  t.match(await inject([], '::ffff:10.0.0.2'), { address: '10.0.0.2', trust: 'untrusted', transportPeer: { address: '10.0.0.2' } })
  t.match(await inject(['::/0'], '10.0.0.2'), { address: '10.0.0.2', trust: 'untrusted' })
  t.match(await inject(['fd00::/8'], 'FD00::0:2'), { address: 'fd00::2', trust: 'trusted' })
  for (const nonsense of ['nonsense', '10.0.0.2:80', '10.0.0']) {
    const answer = await inject(['10.0.0.0/8'], nonsense, header)
    t.match(answer, { source: 'none', reason: 'unverified-peer', trust: 'unverified' })
    t.notOk('address' in answer)
  }
  const bare = await (await create(t, {})).inject({ url: '/', remoteAddress: '10.0.0.2', headers: header })
  t.match(bare.json(), { address: '10.0.0.2', source: 'peer', reason: 'injected', trust: 'unchecked', transportPeer: undefined })
})

t.test('the forwarding header of the other name does not count', async (t) => {
  for (const [header, other] of [['x-forwarded-for', 'forwarded'], ['forwarded', 'x-forwarded-for']] as const) {
    const app = await create(t, { trustedPeers: 'any', forwarded: { trust: ['10.0.0.2', 'loopback'], header } })
    const values = { 'x-forwarded-for': '203.0.113.7', forwarded: 'for=203.0.113.7' }
    const inject = async (name: typeof header, remoteAddress?: string) =>
      (await app.inject({ url: '/', headers: { [name]: values[name] }, ...(remoteAddress && { remoteAddress }) })).json()
    t.match(await inject(header, '10.0.0.2'), { address: '203.0.113.7' })
    t.match(await inject(other, '10.0.0.2'), { address: '10.0.0.2', source: 'transport-peer' })
    // The address that inject() has by default is no proxy's, whoever writes it.
    for (const remoteAddress of [undefined, '127.0.0.1', '127.0.0.2', '::1', '::ffff:127.0.0.1']) {
      t.match(await inject(header, remoteAddress), { address: /^(127\.0\.0\.[12]|::1)$/, source: 'transport-peer', reason: 'no-toa' })
    }
  }
})

t.test('a header is walked once per request, and remembered', async (t) => {
  const app = Fastify()
  await app.register(realIp, { trustedPeers: 'any', forwarded: { trust: ['loopback'] } })
  app.get('/', async (request) => {
    const first = request.realAddress
    request.raw.rawHeaders.splice(0)
    return [first === request.realAddress, first === app.realIp.lookup(request), request.realIp]
  })
  t.teardown(() => app.close())
  const client = await kinds[0]!.connect(await listen(app), { localAddress: CLIENT })
  const response = once(http.get({ createConnection: () => client.socket, headers: { 'x-forwarded-for': '203.0.113.7' } }), 'response')
  let body = ''
  for await (const chunk of (await response)[0]) body += chunk
  t.same(JSON.parse(body), [true, true, '203.0.113.7'])
  client.socket.destroy()
})

t.test('a predicate: only exact true trusts', async (t) => {
  const rejections: unknown[] = []
  const onRejection = (reason: unknown) => { rejections.push(reason) }
  process.on('unhandledRejection', onRejection)
  t.teardown(() => { process.off('unhandledRejection', onRejection) })
  // eslint-disable-next-line no-throw-literal
  const throwing = () => { throw 'no error' }
  for (const [name, predicate, message] of [
    ['1', () => 1], ["'true'", () => 'true'], ['{}', () => ({})], ['undefined', () => undefined], ['false', () => false],
    ['a throw', () => { throw new Error('no') }, /'trustedPeers' threw/],
    ['a throw of no error', throwing, /'trustedPeers' threw/],
    ['a promise', async () => true, /'trustedPeers' returned a promise/],
    ['a rejected promise', async () => { throw new Error('no') }, /'trustedPeers' returned a promise/],
    ['a thenable', () => ({ then: throwing }), /'trustedPeers' returned a promise/],
    ['a hostile object', () => ({ get then () { return throwing() } }), /'trustedPeers' threw/]
  ] as Array<[string, () => any, RegExp?]>) {
    const { logger, errors } = logOf()
    const app = await create(t, { trustedPeers: predicate }, { loggerInstance: logger })
    for (let n = 0; n < 3; n++) t.match((await app.inject('/')).json(), { trust: 'untrusted', address: '127.0.0.1' }, name)
    t.equal(errors.length, message === undefined ? 0 : 1, `${name}: one line a second`)
    if (message !== undefined) t.match(errors[0], message)
  }
  await new Promise((resolve) => setImmediate(resolve))
  t.same(rejections, [])

  const peers: TransportPeer[] = []
  const app = await create(t, {
    trustedPeers (peer) {
      peers.push(peer)
      return true
    }
  })
  t.match((await app.inject('/')).json(), { trust: 'trusted', reason: 'no-toa' })
  t.same(peers, [{ address: '127.0.0.1', port: undefined }])
})

t.test('a second later another error is logged', async (t) => {
  const { logger, errors } = logOf()
  const app = await create(t, { trustedPeers: () => { throw new Error('no') } }, { loggerInstance: logger })
  const { now } = performance
  t.teardown(() => { performance.now = now })
  let later = 0
  performance.now = () => now.call(performance) + later
  await app.inject('/')
  await app.inject('/')
  later = 1000
  await app.inject('/')
  await app.inject('/')
  t.equal(errors.length, 2)
})

t.test('a predicate is asked once per connection, whatever the number of requests', onLinux, async (t) => {
  for (const kind of kinds) {
    const peers: TransportPeer[] = []
    const app = kind.create()
    await app.register(realIp, {
      trustedPeers (peer) {
        peers.push(peer)
        return true
      }
    })
    app.get('/', (request) => request.realAddress)
    t.teardown(() => app.close())
    const client = await kind.connect(await listen(app), { localAddress: '127.0.0.61' })
    for (let n = 0; n < 3; n++) t.match(await client.get('/'), { trust: 'trusted', reason: 'no-toa' })
    t.same(peers, [{ address: '127.0.0.61', port: client.localPort }], kind.name)
    app.realIp.setTrustedPeers((peer) => {
      peers.push(peer)
      return false
    })
    for (let n = 0; n < 3; n++) t.match(await client.get('/'), { trust: 'untrusted' })
    t.equal(peers.length, 2, 'and by another once more')
    await client.close()
  }
})

/** What a server sends to a client that says all it has to say at once. */
async function sentTo (port: number, message: Uint8Array | string, localAddress = '127.0.0.1'): Promise<{ bytes: number, code: string | undefined }> {
  const socket = net.connect({ port, host: '127.0.0.1', localAddress })
  let bytes = 0
  let code: string | undefined
  socket.on('data', (chunk) => { bytes += chunk.length })
  socket.on('error', (error: NodeJS.ErrnoException) => { code = error.code })
  socket.write(message)
  await new Promise((resolve) => socket.once('close', resolve))
  return { bytes, code }
}

// A ClientHello's record header, which an HTTP server takes for nonsense and a TLS server for the start of one.
const hellos = { http: 'GET / HTTP/1.1\r\nHost: x\r\n\r\n', h2c: 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n', tls: Uint8Array.of(22, 3, 1, 0, 100, 1) }

t.test('a setting that rejects resets the connection before a byte is parsed', onLinux, async (t) => {
  for (const kind of kinds) {
    const app = kind.create()
    let seen = 0
    for (const event of ['request', 'stream', 'secureConnection', 'clientError']) app.server.on(event, () => { seen++ })
    await app.register(realIp, { trustedPeers: ['127.0.0.62'], missing: 'reject', untrusted: 'reject', unverified: 'reject' })
    app.get('/', (request) => request.realAddress)
    t.teardown(() => app.close())
    const port = await listen(app)
    const hello = kind.name === 'http' ? hellos.http : kind.name === 'h2c' ? hellos.h2c : hellos.tls
    t.same(await sentTo(port, hello, '127.0.0.62'), { bytes: 0, code: 'ECONNRESET' }, kind.name)
    t.equal(seen, 0, `${kind.name}: nothing is parsed`)
    const client = await kind.connect(port, { localAddress: '127.0.0.63' })
    t.match(await client.get('/'), { address: '127.0.0.63', trust: 'untrusted', reason: undefined }, 'without a claim nobody is refused for it')
    await client.close()
  }
})

t.test('where there is no transport peer', onLinux, async (t) => {
  const socketPath = path.join(tmpdir(), `fastify-real-ip-${process.pid}.sock`)
  const ask = async (): Promise<RealAddress> => {
    const [response] = await once(http.get({ socketPath, path: '/', agent: false }), 'response')
    let body = ''
    for await (const chunk of response) body += chunk
    return JSON.parse(body)
  }

  await t.test('a Unix-domain socket', async (t) => {
    for (const [options, expected] of [
      [{ trustedPeers: ['0.0.0.0/0', '::/0'] }, { source: 'none', trust: 'untrusted', reason: 'no-address' }],
      [{ trustedPeers: [], unverified: 'believe' }, { source: 'none', trust: 'untrusted', reason: 'no-address' }],
      [{ trustedPeers: [], unverified: 'reject' }, { source: 'none', trust: 'untrusted', reason: 'no-address' }],
      [{ trustedPeers: 'any' }, { source: 'none', trust: 'trusted', reason: 'no-address' }],
      [{ trustedPeers: () => true }, { source: 'none', trust: 'untrusted', reason: 'no-address' }],
      [{}, { source: 'none', trust: 'unchecked', reason: 'no-address' }]
    ] as Array<[FastifyRealIpOptions, object]>) {
      const app = await create(t, options)
      await app.listen({ path: socketPath })
      const answer = await ask()
      t.match(answer, expected)
      t.notOk('address' in answer)
      await app.close()
    }
  })

  await t.test('and it is to be refused: a stream, TLS that another server has taken off; by admit a Unix-domain socket too', async (t) => {
    for (const options of [{ trustedPeers: ['0.0.0.0/0'], unverified: 'reject' }, { admit: () => false }] as FastifyRealIpOptions[]) {
      const app = await create(t, options)
      let requests = 0
      app.server.on('request', () => { requests++ })
      await app.listen({ path: socketPath })
      if (options.admit === undefined) {
        t.match(await ask(), { source: 'none', trust: 'untrusted', reason: 'no-address' }, 'which is not unverified')
      } else {
        const [error] = await once(http.get({ socketPath, path: '/', agent: false }), 'error')
        t.match(error.code, /ECONNRESET|EPIPE/)
      }
      const before = requests

      const [ours, theirs] = duplexPair()
      const closed = once(theirs, 'close')
      app.server.emit('connection', theirs)
      await closed
      ours.destroy()

      if (options.admit !== undefined) {
        const front = tls.createServer({ key, cert }, (socket) => {
          socket.on('error', () => {})
          app.server.emit('connection', socket)
        }).listen(0, '127.0.0.1')
        await once(front, 'listening')
        const socket = tls.connect({ port: (front.address() as AddressInfo).port, rejectUnauthorized: false }).on('error', () => {})
        await new Promise((resolve) => socket.once('close', resolve))
        front.close()
      }
      t.equal(before, options.admit === undefined ? 1 : 0)
      t.equal(requests, before)
      await app.close()
    }
  })
  try {
    unlinkSync(socketPath)
  } catch {}
})

t.test('TLS that another server has taken off: the transport peer is the connection\'s below', onLinux, async (t) => {
  const app = await create(t, { trustedPeers: ['127.0.0.64'] })
  await app.ready()
  const front = tls.createServer({ key, cert }, (socket) => app.server.emit('connection', socket)).listen(0, '127.0.0.1')
  await once(front, 'listening')
  const raw = net.connect({ port: (front.address() as AddressInfo).port, host: '127.0.0.1', localAddress: '127.0.0.64' })
  await once(raw, 'connect')
  const { localPort } = raw
  const socket = tls.connect({ socket: raw, rejectUnauthorized: false })
  socket.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')
  let all = ''
  for await (const chunk of socket) all += chunk
  t.match(JSON.parse(all.slice(all.indexOf('{'))), { address: '127.0.0.64', port: localPort, trust: 'trusted', reason: 'no-toa' })
  front.close()
})

t.test('a connection of which neither a SYN nor a source tells', onLinux, async (t) => {
  const { ask } = PeerSearch.prototype
  const { read } = SynReader.prototype
  t.teardown(() => {
    PeerSearch.prototype.ask = ask
    SynReader.prototype.read = read
  })
  SynReader.prototype.read = () => false
  PeerSearch.prototype.ask = (_fd, found) => { found(undefined) }
  const [http] = kinds
  const attempts = [{ source: 'vtoa', reason: 'ENOPROTOOPT' }]
  const rows: Array<[trustedPeers: TrustedPeers, answer: object]> = [
    [[], { source: 'none', trust: 'unverified', reason: 'unverified-peer', attempts }],
    ['any', { address: CLIENT, source: 'peer', trust: 'trusted', reason: 'no-toa', attempts }]
  ]
  for (const [trustedPeers, answer] of rows) {
    const app = await create(t, { sources: ['vtoa'], trustedPeers })
    const client = await http!.connect(await listen(app), { localAddress: CLIENT })
    t.match(await client.get('/'), answer)
    await client.close()
  }
})

t.test('a connection that is handed over twice stands as it was seen first', onLinux, async (t) => {
  const app = await create(t, { trustedPeers: [CLIENT] })
  const port = await listen(app)
  app.server.prependOnceListener('connection', (socket: net.Socket) => {
    // HTTP must not see it twice.
    const listeners = app.server.rawListeners('connection') as Array<(socket: net.Socket) => void>
    app.server.removeAllListeners('connection')
    let seen = 0
    app.server.once('connection', () => { seen++ })
    app.server.emit('connection', socket)
    t.equal(seen, 1)
    for (const listener of listeners) app.server.on('connection', listener)
  })
  const client = await kinds[0]!.connect(port, { localAddress: CLIENT })
  t.match(await client.get('/'), { address: CLIENT, trust: 'trusted', source: 'transport-peer' })
  await client.close()
  t.equal(app.realIp.stats().connections, 1)
})

t.test('nobody can ask before it is known who sent the SYN', onLinux, async (t) => {
  const searches = holdSearches(t)
  const app = Fastify()
  t.teardown(() => app.close())
  const early: RealAddress[] = []
  let connections = 0
  app.server.prependListener('connection', () => { connections++ })
  app.addHook('onRequest', (request, _reply, next) => {
    early.push(request.realAddress)
    next()
  })
  await app.register(realIp, { trustedPeers: [CLIENT] })
  app.get('/', (request) => request.realAddress)
  const client = await kinds[0]!.connect(await listen(app), { localAddress: CLIENT })
  const answer = client.get('/')
  await searches.waiting()
  t.equal(connections, 0)
  searches.release()
  t.match(await answer, { address: CLIENT, trust: 'trusted' })
  await client.close()
  t.match(early, [{ address: CLIENT, trust: 'trusted' }])
  t.equal(connections, 1)
})

t.test('what no server of the plugin has handed over has no address', onLinux, async (t) => {
  const app = await create(t, { trustedPeers: ['0.0.0.0/0'] })
  await app.ready()
  const front = http.createServer((req, res) => app.routing(req, res)).listen(0, '127.0.0.1')
  await once(front, 'listening')
  const client = await kinds[0]!.connect((front.address() as AddressInfo).port)
  const answer = await client.get('/')
  t.match(answer, { source: 'none', trust: 'unverified', reason: 'unverified-peer' })
  t.notOk('transportPeer' in answer)
  await client.close()
  front.close()
})

t.test('the socket of an HTTP/2 session that is dead cannot be asked anything, and lookup() still answers', async (t) => {
  for (const options of [{}, { trustedPeers: ['127.0.0.0/8'] }]) {
    const app = await create(t, options)
    await app.ready()
    const front = http2.createServer().listen(0, '127.0.0.1')
    await once(front, 'listening')
    const client = http2.connect(`http://127.0.0.1:${(front.address() as AddressInfo).port}`).on('error', () => {})
    const [session] = await once(front, 'session') as [http2.ServerHttp2Session]
    const { socket } = session
    client.destroy()
    await once(session, 'close')
    for (const dead of [session, socket, { socket }]) t.match(app.realIp.lookup(dead as never), { address: undefined, source: 'none' })
    front.close()
  }
})
