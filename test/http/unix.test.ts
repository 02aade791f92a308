import { mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import { once } from 'node:events'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type * as Koffi from 'koffi' with { 'resolution-mode': 'import' }
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import realIp, { encodeProxyHeader, type FastifyRealIpOptions, realIpIn, realIpKey } from 'fastify-real-ip'
import { type Client, type Kind, kinds } from '../kinds'

// Connections by Unix-domain sockets, which have no address.

const windows = process.platform === 'win32' && 'pipes of Windows are no Unix-domain sockets'
const linux = process.platform === 'linux'
const [plain] = kinds as [Kind]
const client = '203.0.113.7'
const xff = (value: string) => ({ 'x-forwarded-for': value })

function socketPath (t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'fastify-real-ip-unix-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return join(folder, 'server.sock')
}

async function create (t: Test, kind: Kind, options: FastifyRealIpOptions, fastify: object = {}): Promise<FastifyInstance> {
  const app = kind.create({ forceCloseConnections: true, ...fastify })
  await app.register(realIp, options)
  app.get('/', (request) => ({ answer: request.realAddress, key: realIpKey()(request) }))
  t.teardown(() => app.close())
  return app
}

async function open (t: Test, kind: Kind, options: FastifyRealIpOptions): Promise<Client> {
  const app = await create(t, kind, options)
  const path = socketPath(t)
  await app.listen({ path })
  const connected = await kind.connect(0, { path })
  t.teardown(() => connected.close())
  return connected
}

const rejects = { untrusted: 'reject', missing: 'reject', invalid: 'reject', unverified: 'reject' } as const
const nobody = { address: undefined, source: 'none', trust: 'untrusted', reason: 'no-address' }

for (const kind of kinds) {
  t.test(`${kind.name}: with 'unix' in forwarded.trust the header counts`, { skip: windows }, async (t) => {
    for (const options of [{}, { trustedPeers: ['10.0.0.0/8'], ...rejects }]) {
      const { get } = await open(t, kind, { ...options, forwarded: { trust: ['unix'] } })
      t.match(await get('/', xff(`198.51.100.1, ${client}`)), {
        answer: { address: client, source: 'forwarded', trust: 'trusted', via: { source: 'none' } }, key: client
      })
      t.match(await get('/', xff('127.0.0.5')), { answer: { address: '127.0.0.5' } }, 'a client on this host')
      const missing = await get('/')
      t.match({ address: undefined, ...missing.answer }, { address: undefined, source: 'none', reason: 'forwarded-missing' })
      t.match(missing.key, 'forwarded-missing')
      const malformed = await get('/', xff('nonsense'))
      t.match({ address: undefined, ...malformed.answer }, { address: undefined, source: 'none', reason: 'forwarded-malformed' })
    }
  })

  t.test(`${kind.name}: without 'unix' it does not, and the connection is served all the same`, { skip: windows }, async (t) => {
    for (const options of [
      { forwarded: { trust: ['0.0.0.0/0', '::/0'] } },
      { trustedPeers: [], ...rejects },
      { trustedPeers: ['0.0.0.0/0', '::/0'], ...rejects, forwarded: { trust: ['loopback'] } }
    ]) {
      const { get } = await open(t, kind, options)
      for (const headers of [{}, xff(client)]) {
        const { answer, key } = await get('/', headers)
        t.match({ address: undefined, ...answer }, nobody)
        t.equal(key, 'unknown:no-address')
      }
    }
  })
}

t.test("'unix' is swapped like addresses", { skip: windows }, async (t) => {
  const app = await create(t, plain, { forwarded: { trust: [] } })
  const path = socketPath(t)
  await app.listen({ path })
  const { get, close } = await plain.connect(0, { path })
  t.match((await get('/', xff(client))).answer, { source: 'none', reason: 'no-address' })
  app.realIp.setForwardedTrust(['unix'])
  t.match((await get('/', xff(client))).answer, { address: client, source: 'forwarded' })
  app.realIp.setForwardedTrust(['0.0.0.0/0'])
  t.match((await get('/', xff(client))).answer, { source: 'none', reason: 'no-address' })
  await close()
})

t.test("with 'any', PROXY headers count on a Unix-domain socket until a list replaces it", { skip: !linux && 'not Linux' }, async (t) => {
  const header = encodeProxyHeader({ source: { address: client, port: 51234 }, destination: { address: '198.51.100.1', port: 443 } })
  const app = await create(t, plain, { sources: ['proxy-protocol'], trustedPeers: 'any' })
  const path = socketPath(t)
  await app.listen({ path })
  async function open (bytes: Buffer): Promise<net.Socket> {
    const socket = net.connect({ path })
    socket.on('error', () => {})
    t.teardown(() => socket.destroy())
    await once(socket, 'connect')
    socket.write(bytes)
    return socket
  }
  async function ask (socket: net.Socket): Promise<any> {
    socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
    const [bytes] = await once(socket, 'data') as [Buffer]
    const text = bytes.toString()
    return text.startsWith('HTTP/1.1 200') ? JSON.parse(text.slice(text.indexOf('\r\n\r\n') + 4)).answer : text.slice(0, 12)
  }
  const before = await open(header)
  t.match(await ask(before), { address: client, trust: 'trusted', source: 'proxy-protocol' })
  for (const list of [[], ['10.0.0.0/8']]) {
    app.realIp.setTrustedPeers(list)
    const answer = await ask(before)
    t.match({ address: undefined, proxyProtocol: undefined, ...answer }, { ...nobody, proxyProtocol: undefined }, 'one that lives on')
    t.equal(await ask(await open(header)), 'HTTP/1.1 400', 'its header is data')
    t.match(await ask(await open(Buffer.alloc(0))), { trust: 'untrusted', reason: 'no-address' })
  }
  app.realIp.setTrustedPeers('any')
  t.match(await ask(before), { address: client, trust: 'trusted' })
  t.match(await ask(await open(header)), { address: client, trust: 'trusted' })
  const missing = await open(Buffer.alloc(0))
  const closed = once(missing, 'close')
  missing.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
  await closed
  t.match(app.realIp.stats().reason, { 'proxy-missing': 1 })
})

t.test('admit, stats and allow lists have no address to go by', { skip: windows }, async (t) => {
  const asked: unknown[] = []
  const app = await create(t, plain, {
    forwarded: { trust: ['unix'] },
    admit ({ source, trust, reason }) {
      asked.push([source, trust, reason])
      return true
    }
  })
  const isStaff = realIpIn(['0.0.0.0/0', '::/0'])
  app.get('/staff', (request) => JSON.stringify(isStaff(request)))
  const path = socketPath(t)
  await app.listen({ path })
  const { get, close } = await plain.connect(0, { path })
  t.equal(await get('/staff'), false)
  t.equal(await get('/staff', xff(client)), true)
  t.equal(await get('/staff', xff('nonsense')), false)
  t.same(asked, [['none', 'untrusted', 'no-address']])
  t.match(app.realIp.stats(), { connections: 1, rejected: 0, trust: { untrusted: 1, unverified: 0 }, reason: { 'no-address': 1 } })
  await close()
})

t.test("a connection by a Unix-domain socket that is emitted by hand on a TCP server is not 'unix'", { skip: windows }, async (t) => {
  for (const [unverified, expected] of [['ignore', 200], ['reject', 'reset']] as const) {
    const app = await create(t, plain, { trustedPeers: [], unverified, forwarded: { trust: ['unix'] } })
    await app.listen({ port: 0, host: '127.0.0.1' })
    const path = socketPath(t)
    const front = net.createServer((socket) => app.server.emit('connection', socket)).listen(path)
    await once(front, 'listening')
    t.teardown(() => { front.close() })
    const request = http.get({ socketPath: path, agent: false, headers: xff(client) })
    if (expected === 200) {
      const [response] = await once(request, 'response') as [http.IncomingMessage]
      const { answer } = JSON.parse((await response.toArray()).join(''))
      t.match({ address: undefined, ...answer }, { address: undefined, trust: 'unverified' })
    } else {
      await t.rejects(once(request, 'response'), { code: /^(ECONNRESET|EPIPE)$/ })
    }
  }
})

t.test('a TCP connection that is emitted by hand on a server of a Unix-domain socket is none', { skip: windows }, async (t) => {
  const app = await create(t, plain, { forwarded: { trust: ['unix'] } })
  await app.listen({ path: socketPath(t) })
  const front = net.createServer((socket) => app.server.emit('connection', socket)).listen(0, '127.0.0.1')
  await once(front, 'listening')
  t.teardown(() => { front.close() })
  const { get, close } = await plain.connect((front.address() as net.AddressInfo).port)
  const { answer } = await get('/', xff(client))
  t.notMatch(answer, { address: client })
  if (linux) t.match(answer, { address: '127.0.0.1', trust: 'untrusted' }, 'sock_diag tells who sends')
  await close()
})

t.test('listen({ fd }) of a listening Unix-domain socket is as by path', { skip: !linux && 'not Linux' }, async (t) => {
  const koffi = require('koffi') as typeof Koffi
  const libc = koffi.load(null)
  const [AF_UNIX, SOCK_STREAM] = [1, 1]
  for (const kind of kinds) {
    for (const trust of [[], ['unix']]) {
      const app = await create(t, kind, { trustedPeers: ['10.0.0.0/8'], ...rejects, forwarded: { trust } })
      const path = socketPath(t)
      const fd: number = libc.func('int socket(int, int, int)')(AF_UNIX, SOCK_STREAM, 0)
      const name = Buffer.alloc(110)
      name.writeUInt16LE(AF_UNIX)
      name.write(path, 2)
      t.equal(libc.func('int bind(int, uint8_t *, int)')(fd, name, name.length), 0)
      t.equal(libc.func('int listen(int, int)')(fd, 8), 0)
      // Fastify 5's own listen() cannot tell the address of such a server.
      await app.ready()
      app.server.listen({ fd })
      await once(app.server, 'listening')
      const { get, close } = await kind.connect(0, { path })
      const { answer } = await get('/', xff(client))
      const expected = trust.length === 0 ? nobody : { address: client, source: 'forwarded', trust: 'trusted' }
      t.match({ address: undefined, ...answer }, expected, `${kind.name}, ${trust}`)
      await close()
      await app.close()
    }
  }
})
