import { once } from 'node:events'
import { channel } from 'node:diagnostics_channel'
import type { Socket } from 'node:net'
import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import realIp, {
  type ConnectionMessage, encodeProxyHeader, type FastifyRealIpOptions, type RealAddress, realIpKey, type Stats, withRealIp
} from 'fastify-real-ip'
import { kinds } from '../kinds'
import { askHttp } from './ask'
import { firstBytes } from './exchanges'
import { goodHeaders } from './headers'
import { connectFrom, countLooks, PEER, serve, type Served } from './matrix'
import { expectConnection, sendAndWait, untilRead, ways } from './wire'

// Whose headers count, and how what they say goes together with the other options.

const onLinux = { skip: process.platform !== 'linux' && 'not Linux' }
const STRANGER = '127.0.0.66'
const client = { address: '203.0.113.7', port: 51234 }
const server = { address: '198.51.100.1', port: 443 }
const header = encodeProxyHeader({ source: client, destination: server })
const nobody = encodeProxyHeader({})

const counted = (stats: Stats) => Object.fromEntries(Object.entries(stats.reason).filter(([, count]) => count > 0))

t.test("a stranger's bytes are not looked at, and no route runs", onLinux, async (t) => {
  for (const { name } of kinds) {
    const served = await serve(t, name)
    const { app, events } = served
    const looks = countLooks(t)
    for (const way of ways.slice(1)) {
      const { received } = await sendAndWait(connectFrom(served, STRANGER), way, header, firstBytes(name))
      // Where not all of it was read, a reset may overtake the answer.
      t.match(received, name === 'http' ? way === 'byte by byte' ? /^(HTTP\/1\.1 400 |$)/ : /^HTTP\/1\.1 400 / : /^(?!.*HTTP\/1)/s)
    }
    t.equal(looks(), 0, name)
    t.notOk(events.some((event) => event === 'request' || event === 'stream' || event === 'secureConnection'), name)
    t.match(app.realIp.stats(), { connections: 3, rejected: 0, trust: { untrusted: 3 } })
    t.same(counted(app.realIp.stats()), {})
  }
})

t.test("a stranger without a header is served, and with untrusted: 'reject' reset unread", onLinux, async (t) => {
  const served = await serve(t, 'http')
  t.match(await askHttp(connectFrom(served, STRANGER)), { address: STRANGER, trust: 'untrusted', proxyProtocol: undefined })
  const strict = await serve(t, 'http', { options: { untrusted: 'reject' } })
  const looks = countLooks(t)
  for (const bytes of [Buffer.alloc(0), header]) t.equal(await askHttp(connectFrom(strict, STRANGER), { header: bytes }), 'reset')
  t.equal(looks(), 0)
  t.same(strict.events, [])
  const stats = strict.app.realIp.stats()
  t.match(stats, { connections: 2, rejected: 2, trust: { untrusted: 2 }, source: { 'transport-peer': 2 } })
  t.same(counted(stats), { 'untrusted-peer': 2 })
  t.match(await askHttp(connectFrom(strict, PEER), { header }), client)
})

t.test("'from' is narrower than the list", onLinux, async (t) => {
  const options = { trustedPeers: ['127.0.0.8', PEER], proxyProtocol: { from: [PEER] } }
  const served = await serve(t, 'http', { options })
  t.match(await askHttp(connectFrom(served, PEER), { header }), { ...client, trust: 'trusted' })
  t.equal(await askHttp(connectFrom(served, PEER)), 'reset')
  const looks = countLooks(t)
  t.match(await askHttp(connectFrom(served, '127.0.0.8')), { address: '127.0.0.8', trust: 'trusted', reason: 'no-toa' }, 'a probe')
  t.equal(await askHttp(connectFrom(served, '127.0.0.8'), { header }), 400, 'its bytes are data')
  t.equal(looks(), 0)
  t.same(counted(served.app.realIp.stats()), { 'no-toa': 2, 'proxy-missing': 1 })
  const strict = await serve(t, 'http', { options: { ...options, missing: 'reject' } })
  t.equal(await askHttp(connectFrom(strict, '127.0.0.8')), 'reset')
  t.match(await askHttp(connectFrom(strict, PEER), { header }), client)
  // Who is in 'from' alone is a stranger.
  const wide = await serve(t, 'http', { options: { trustedPeers: [PEER], proxyProtocol: { from: ['127.0.0.0/8'] } } })
  t.equal(await askHttp(connectFrom(wide, '127.0.0.8'), { header }), 400)
})

t.test('a predicate, and any', onLinux, async (t) => {
  const asked: unknown[] = []
  const served = await serve(t, 'http', {
    options: {
      trustedPeers (peer) {
        asked.push(peer.address)
        return peer.address === PEER
      }
    }
  })
  t.match(await askHttp(connectFrom(served, PEER), { header }), { ...client, trust: 'trusted' })
  t.equal(await askHttp(connectFrom(served, STRANGER), { header }), 400)
  t.same([...new Set(asked)], [PEER, STRANGER])
  const any = await serve(t, 'http', { options: { trustedPeers: 'any' } })
  t.match(await askHttp(connectFrom(any, STRANGER), { header }), { ...client, trust: 'trusted', transportPeer: { address: STRANGER } })
  t.equal(await askHttp(connectFrom(any, STRANGER)), 'reset')
})

t.test("a header that names no client is no fault, whatever 'missing' says", onLinux, async (t) => {
  const served = await serve(t, 'http', { options: { missing: 'reject' } })
  for (const { bytes, source, name } of goodHeaders) {
    if (source !== undefined) continue
    t.match(await askHttp(connectFrom(served, PEER), { header: bytes }), { address: PEER, trust: 'trusted', source: 'transport-peer', reason: 'proxy-local', proxyProtocol: { local: true } }, name)
  }
})

t.test('a header that names its sender', onLinux, async (t) => {
  const served = await serve(t, 'http', { options: { missing: 'reject' } })
  for (const version of [1, 2] as const) {
    const socket = connectFrom(served, PEER)()
    await once(socket, 'connect')
    const self = { address: PEER, port: socket.localPort as number }
    t.match(await askHttp(() => socket, { header: encodeProxyHeader({ version, source: self, destination: { address: '127.0.0.1', port: 1 } }) }),
      { ...self, source: 'transport-peer', trust: 'trusted', reason: 'proxy-local', proxyProtocol: { version, local: false } })
  }
  t.same(counted(served.app.realIp.stats()), { 'proxy-local': 2 })
})

t.test('an address that no client can have', onLinux, async (t) => {
  for (const address of ['0.0.0.0', '224.0.0.1', '255.255.255.255', '::', 'ff02::1']) {
    const impossible = encodeProxyHeader({ source: { address, port: 1 }, destination: { address: address.includes(':') ? '2001:db8::1' : '198.51.100.1', port: 1 } })
    const reset = await serve(t, 'https')
    t.match(await sendAndWait(connectFrom(reset, PEER), 'later', impossible, firstBytes('https')), { received: '', code: 'ECONNRESET' }, address)
    t.same(reset.events, [])
    t.same(counted(reset.app.realIp.stats()), { implausible: 1 })
    const ignored = await serve(t, 'http', { options: { invalid: 'ignore' } })
    const answer = await askHttp(connectFrom(ignored, PEER), { header: impossible })
    t.match(answer, { address: PEER, source: 'transport-peer', trust: 'trusted', reason: 'implausible', proxyProtocol: undefined })
  }
})

t.test('admit is asked before TLS, with what the header says', onLinux, async (t) => {
  for (const { name } of kinds) {
    const asked: RealAddress[] = []
    const served = await serve(t, name, { options: { admit: (address) => asked.push(address) > 1 } })
    t.match(await sendAndWait(connectFrom(served, PEER), 'split in two', header, firstBytes(name)), { received: '', code: 'ECONNRESET' }, name)
    t.same(served.events, [])
    t.match(asked, [{ ...client, trust: 'trusted', source: 'proxy-protocol', proxyProtocol: { version: 2, destination: server } }])
    t.match(served.app.realIp.stats(), { connections: 1, rejected: 1 })
    const { received } = await sendAndWait(connectFrom(served, PEER), 'later', header, Buffer.from('nonsense\r\n\r\n'))
    t.not(served.events.length, 0, 'the second time it is handed over')
    t.equal(asked.length, 2, received)
  }
})

t.test("a CDN's header starts at the address of the PROXY header", onLinux, async (t) => {
  const served = await serve(t, 'http', { options: { forwarded: { trust: ['203.0.113.0/24'] } } })
  const lines = ['X-Forwarded-For: 192.0.2.77']
  t.match(await askHttp(connectFrom(served, PEER), { header, lines }),
    { address: '192.0.2.77', source: 'forwarded', trust: 'trusted', via: { ...client, source: 'proxy-protocol', proxyProtocol: { destination: server } } })
  const other = encodeProxyHeader({ source: { address: '198.51.100.7', port: 1 }, destination: server })
  t.match(await askHttp(connectFrom(served, PEER), { header: other, lines }), { address: '198.51.100.7', source: 'proxy-protocol', via: undefined }, 'not from the CDN')
  t.match(await askHttp(connectFrom(served, PEER), { header: nobody, lines }), { address: PEER, reason: 'proxy-local', via: undefined }, 'a probe')
})

/** A connection that is kept, with the answers on it. */
async function keep (open: () => Socket, first: Buffer) {
  expectConnection()
  const socket = open()
  await once(socket, 'connect')
  socket.write(first)
  return {
    socket,
    async ask (): Promise<RealAddress | 'closed'> {
      socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
      return await new Promise((resolve) => {
        socket.once('data', (part: Buffer) => { resolve(JSON.parse(part.toString().split('\r\n\r\n')[1] as string)) })
        socket.once('error', () => {}).once('close', () => { resolve('closed') })
      })
    }
  }
}

t.test('setTrustedPeers() and a connection that came with a header', onLinux, async (t) => {
  const served = await serve(t, 'http')
  const { ask, socket } = await keep(connectFrom(served, PEER), header)
  t.match(await ask(), client)
  served.app.realIp.setTrustedPeers([])
  t.match(await ask(), { address: PEER, trust: 'untrusted', reason: 'untrusted-peer', proxyProtocol: undefined })
  served.app.realIp.setTrustedPeers([PEER])
  t.match(await ask(), { ...client, proxyProtocol: { destination: server } })
  socket.destroy()
  const local = await keep(connectFrom(served, PEER), nobody)
  t.match(await local.ask(), { address: PEER, trust: 'trusted', reason: 'proxy-local' })
  served.app.realIp.setTrustedPeers([])
  t.match(await local.ask(), { address: PEER, source: 'transport-peer', trust: 'untrusted', reason: undefined })
  local.socket.destroy()
})

t.test("untrusted: 'reject' closes what lives on of a revoked peer, also where its header named no client", onLinux, async (t) => {
  for (const [what, bytes, options] of [
    ['a header', header, {}],
    ['LOCAL', nobody, {}],
    ["no header, not in 'from'", Buffer.alloc(0), { proxyProtocol: { from: ['192.0.2.1'] } }]
  ] as const) {
    const served = await serve(t, 'http', { options: { untrusted: 'reject', ...options } })
    const { ask } = await keep(connectFrom(served, PEER), bytes)
    t.match(await ask(), { trust: 'trusted' }, what)
    served.app.realIp.setTrustedPeers([])
    t.equal(await ask(), 'closed', what)
  }
})

/** A connection that is held: its header is not all there. */
async function holdOne (served: Served, part: Buffer): Promise<Socket> {
  expectConnection()
  const socket = connectFrom(served, PEER)()
  socket.write(part)
  await untilRead(socket, part.length)
  return socket
}

t.test('setTrustedPeers() while a connection is held', onLinux, async (t) => {
  for (const [what, bytes, expected] of [
    ['no header', Buffer.alloc(0), { address: PEER, trust: 'untrusted' }],
    ['a header', header, 400]
  ] as const) {
    const served = await serve(t, 'http')
    const socket = await holdOne(served, bytes.subarray(0, 5))
    served.app.realIp.setTrustedPeers([])
    t.match(await askHttp(() => socket, { header: bytes.subarray(5) }), expected, what)
    t.match(served.app.realIp.stats(), { connections: 1, rejected: 0, trust: { untrusted: 1 } })
  }
  const strict = await serve(t, 'http', { options: { untrusted: 'reject' } })
  const socket = await holdOne(strict, header.subarray(0, 5))
  strict.app.realIp.setTrustedPeers([])
  t.equal(await askHttp(() => socket, { header: header.subarray(5) }), 'reset')
  t.match(strict.app.realIp.stats(), { connections: 1, rejected: 1 })
})

t.test('a client that ends while it is held, of whom no header is expected any more', onLinux, async (t) => {
  for (const part of [5, 0]) {
    const served = await serve(t, 'http')
    const socket = await holdOne(served, header.subarray(0, part))
    socket.on('error', () => {})
    served.app.realIp.setTrustedPeers([])
    const closed = once(socket, 'close').catch(() => {})
    socket.end()
    await closed
    t.same(served.events, [], 'nobody hears of it')
    t.match(served.app.realIp.stats(), { connections: 1, source: { none: 1 } })
    t.match(await askHttp(connectFrom(served, PEER)), { address: PEER, trust: 'untrusted' }, 'the server goes on')
  }
})

t.test('the channel tells each connection once, when its header was read', onLinux, async (t) => {
  const messages: ConnectionMessage[] = []
  const listen = (message: unknown) => { messages.push(message as ConnectionMessage) }
  channel('fastify-real-ip:connection').subscribe(listen)
  t.teardown(() => channel('fastify-real-ip:connection').unsubscribe(listen))
  const served = await serve(t, 'http')
  await askHttp(connectFrom(served, PEER), { header, way: 'byte by byte' })
  await askHttp(connectFrom(served, PEER), { header: nobody, way: 'later' })
  await askHttp(connectFrom(served, PEER))
  t.match(messages.map(({ realAddress }) => realAddress), [
    { ...client, source: 'proxy-protocol', proxyProtocol: { version: 2 } }, { address: PEER, reason: 'proxy-local' },
    { address: undefined, source: 'none', reason: 'proxy-missing', transportPeer: { address: PEER } }
  ])
  t.match(messages.map(({ socket }) => socket.destroyed), [true, true, true])
})

t.test('keys, log lines, lookup() and late answers', onLinux, async (t) => {
  const lines: any[] = []
  const app: { late?: () => RealAddress, early?: RealAddress, key?: string } = {}
  const key = realIpKey()
  const served = await serve(t, 'http', {
    options: { bindLogger: true },
    fastify: { logger: { serializers: { req: withRealIp() }, stream: { write: (line: string) => { lines.push(JSON.parse(line)) } } } },
    prepare (instance: FastifyInstance) {
      instance.server.on('connection', (socket) => { app.early = instance.realIp.lookup(socket) })
      instance.addHook('onRequest', async (request) => {
        app.key = key(request)
        app.late = () => request.realAddress
      })
    }
  })
  const visited = async (bytes: Buffer) => {
    lines.length = 0
    const answer = await askHttp(connectFrom(served, PEER), { header: bytes }) as RealAddress
    t.match(app.early, answer, 'lookup() in a listener of connection')
    t.match(app.late?.(), answer, 'after the connection has ended')
    t.equal(lines.find(({ msg }) => msg === 'request completed').realIp, answer.address)
    return lines.find(({ msg }) => msg === 'incoming request').req
  }
  t.match(await visited(header), { realIp: client.address, realPort: client.port, source: 'proxy-protocol', trust: 'trusted', transportPeer: { address: PEER } })
  t.equal(app.key, client.address)
  t.match(await visited(nobody), { realIp: PEER, reason: 'proxy-local' })
  t.equal(app.key, `proxy-local:${PEER}`, 'an address that many share is no key of its own')
})

t.test('options that do not go together', async (t) => {
  const wrong: Array<[options: object, message: RegExp]> = [
    [{ unverified: 'believe' }, /'unverified' cannot be 'believe'/],
    [{ trustedPeers: undefined }, /'trustedPeers' is undefined/],
    [{ proxyProtocol: { timeout: 0 } }, /timeout/],
    [{ proxyProtocol: { timeout: 60_001 } }, /timeout/],
    [{ proxyProtocol: { from: '10.0.0.0/8' } }, /proxyProtocol.from/],
    [{ proxyProtocol: { form: [] } }, /'form'/],
    [{ sources: ['vtoa'], proxyProtocol: {} }, /needs the source 'proxy-protocol'/]
  ]
  for (const [options, message] of wrong) {
    const app = Fastify()
    const given = { sources: ['proxy-protocol'], trustedPeers: [PEER], ...options } as FastifyRealIpOptions
    await t.rejects(async () => { await app.register(realIp, given) }, { code: 'FST_REAL_IP_INVALID_OPTION', message })
  }
  const app = Fastify()
  await t.rejects(async () => { await app.register(realIp, { sources: ['proxy-protocol'] }) }, { code: 'FST_REAL_IP_INVALID_OPTION', message: /needs 'trustedPeers'/ })
})
