import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import net from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import rateLimit from '@fastify/rate-limit'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { type Kind, kinds, listen, oneLoopback } from '../kinds'

// What other plugins see of a request with overrideRequest.

const PROXY = '127.0.0.9'
const STRANGER = '127.0.0.66'
const [plain] = kinds as [Kind]
const forwarded = { trust: [PROXY, '10.0.0.0/8'] }
const proxied = { forwarded, overrideRequest: true } as const

const seenBy = ({ ip, ips, protocol, host, hostname, port }: FastifyRequest) =>
  ({ ip: ip ?? 'undefined', ips, protocol, host, hostname, port })

async function serve (
  t: Test, kind: Kind, options: FastifyRealIpOptions, prepare: (app: FastifyInstance) => unknown = () => {}
): Promise<[app: FastifyInstance, port: number]> {
  const app = kind.create({ forceCloseConnections: true })
  await app.register(realIp, options)
  await prepare(app)
  app.get('/', seenBy)
  t.teardown(() => app.close())
  return [app, await listen(app)]
}

const ofClient = { 'x-forwarded-for': '203.0.113.7', 'x-forwarded-proto': 'https', 'x-forwarded-host': 'shop.example:8443' }

for (const kind of kinds) {
  t.test(`${kind.name}: behind a trusted proxy all comes from its headers, else from the connection`, { skip: oneLoopback }, async (t) => {
    const own = kind.name === 'http' || kind.name === 'h2c' ? 'http' : 'https'
    const [, port] = await serve(t, kind, proxied)
    const proxy = await kind.connect(port, { localAddress: PROXY })
    t.match(await proxy.get('/', ofClient), {
      ip: '203.0.113.7', ips: [PROXY, '203.0.113.7'], protocol: 'https', host: 'shop.example:8443', hostname: 'shop.example', port: 8443
    })
    const bare = await proxy.get('/', { 'x-forwarded-for': '203.0.113.7' })
    t.match(bare, { ip: '203.0.113.7', protocol: own, hostname: '127.0.0.1' }, 'no X-Forwarded-Proto or -Host')
    const { 'x-forwarded-for': _, ...others } = ofClient
    t.match(await proxy.get('/', others), { ip: PROXY, ips: [PROXY], protocol: own, hostname: '127.0.0.1' }, 'they come with an address or not at all')
    await proxy.close()

    const stranger = await kind.connect(port, { localAddress: STRANGER })
    t.match(await stranger.get('/', ofClient), { ip: STRANGER, ips: [STRANGER], protocol: own, hostname: '127.0.0.1', host: bare.host })
    await stranger.close()
  })
}

t.test('lists as Fastify reads them, and what is malformed is ignored', { skip: oneLoopback }, async (t) => {
  const [, port] = await serve(t, plain, proxied)
  const { get, close } = await plain.connect(port, { localAddress: PROXY })
  const own = { protocol: 'http', hostname: '127.0.0.1' }
  const ask = (proto: string | string[], host: string | string[]) =>
    get('/', { 'x-forwarded-for': '203.0.113.7', 'x-forwarded-proto': proto, 'x-forwarded-host': host })
  t.match(await ask('http, https', 'evil.example, shop.example'), { protocol: 'https', host: 'shop.example' })
  t.match(await ask(['http', 'https'], ['evil.example', 'shop.example']), { protocol: 'https', host: 'shop.example' })
  for (const [proto, host] of [
    ['javascript', 'a b'], ['', ''], ['https:', 'shop.example:99999'], ['constructor', '<script>'], ['https,', 'shop.example,']
  ] as const) {
    t.match(await ask(proto, host), own, `${proto} ${host}`)
  }
  t.match(await ask('HTTPS', '[2001:db8::1]:8443'), { protocol: 'https', hostname: '[2001:db8::1]', port: 8443 })
  await close()
})

t.test('Forwarded: protocol and host of the element that the address came from', { skip: oneLoopback }, async (t) => {
  const [, port] = await serve(t, plain, { ...proxied, forwarded: { ...forwarded, header: 'forwarded' } })
  const { get, close } = await plain.connect(port, { localAddress: PROXY })
  const elements = [
    'for=198.51.100.1;proto=http;host=evil.example', 'for=203.0.113.7;proto=https;host=shop.example',
    'for=10.0.0.2;proto=http;host=inner.example'
  ]
  t.match(await get('/', { ...ofClient, forwarded: elements.join(', ') }), {
    ip: '203.0.113.7', ips: [PROXY, '10.0.0.2', '203.0.113.7'], protocol: 'https', host: 'shop.example'
  })
  t.match(await get('/', { ...ofClient, forwarded: 'for=203.0.113.7' }), { ip: '203.0.113.7', protocol: 'http', hostname: '127.0.0.1' })
  await close()
})

t.test('ips has what was believed, and nothing beyond', { skip: oneLoopback }, async (t) => {
  const [, port] = await serve(t, plain, proxied)
  const { get, close } = await plain.connect(port, { localAddress: PROXY })
  for (const [value, ips] of [
    ['198.51.100.1, 203.0.113.7, 10.0.0.2', [PROXY, '10.0.0.2', '203.0.113.7']],
    ['198.51.100.1, nonsense, 10.0.0.2', [PROXY, '10.0.0.2']],
    ['198.51.100.1, 224.0.0.1, 10.0.0.2', [PROXY, '10.0.0.2']],
    ['198.51.100.1, 0.0.0.0', [PROXY]],
    ['10.0.0.3, 10.0.0.2', [PROXY, '10.0.0.2', '10.0.0.3']],
    ['10.0.0.2, 10.0.0.2', [PROXY, '10.0.0.2', '10.0.0.2']]
  ] as const) {
    const seen = await get('/', { 'x-forwarded-for': value })
    t.same(seen.ips, ips, value)
    t.equal(seen.ip, ips.at(-1))
  }
  await close()
})

t.test('@fastify/rate-limit without a keyGenerator of its own counts clients, not proxies', { skip: oneLoopback }, async (t) => {
  const [, port] = await serve(t, plain, proxied, (app) => app.register(rateLimit, { max: 2, timeWindow: '1 hour' }))
  const statuses = async (localAddress: string, addresses: string[]) => {
    const seen: string[] = []
    const { get, close } = await plain.connect(port, { localAddress })
    for (const address of addresses) {
      const { ip, statusCode } = await get('/', { 'x-forwarded-for': address })
      seen.push(statusCode === 429 ? '429' : ip)
    }
    await close()
    return seen
  }
  const one = '203.0.113.7'
  t.same(await statuses(PROXY, [one, one, one, '203.0.113.8']), [one, one, '429', '203.0.113.8'])
  const forged = await statuses(STRANGER, ['203.0.113.9', '203.0.113.10', '203.0.113.11'])
  t.same(forged, [STRANGER, STRANGER, '429'], 'a forged header gets nobody out of the limit')
})

t.test('a redirect to HTTPS and a secure cookie', { skip: oneLoopback }, async (t) => {
  const [, port] = await serve(t, plain, proxied, (app) => {
    app.get('/login', (request, reply) => {
      // As @fastify/cookie's secure: 'auto' decides.
      const secure = request.protocol === 'https' ? '; Secure' : ''
      return reply.header('set-cookie', `session=1${secure}`).send({ cookie: `session=1${secure}` })
    })
    app.get('/old', (request, reply) => reply.send({ location: `${request.protocol}://${request.hostname}/new` }))
  })
  for (const [localAddress, cookie, location] of [
    [PROXY, 'session=1; Secure', 'https://shop.example/new'], [STRANGER, 'session=1', 'http://127.0.0.1/new']
  ] as const) {
    const { get, close } = await plain.connect(port, { localAddress })
    t.same(await get('/login', ofClient), { cookie })
    t.same(await get('/old', ofClient), { location })
    await close()
  }
})

t.test('a request without Host', async (t) => {
  const [, port] = await serve(t, plain, proxied)
  const socket = net.connect(port, '127.0.0.1')
  socket.end('GET / HTTP/1.0\r\n\r\n')
  const answer = await text(socket)
  t.match(JSON.parse(answer.slice(answer.indexOf('\r\n\r\n'))), { ip: '127.0.0.1', host: '', hostname: '', protocol: 'http' })
})

t.test('no address: request.ip is undefined', { skip: process.platform === 'win32' && 'no Unix-domain sockets' }, async (t) => {
  const app = plain.create({ forceCloseConnections: true })
  await app.register(realIp, proxied)
  app.get('/', seenBy)
  t.teardown(() => app.close())
  const folder = mkdtempSync(join(tmpdir(), 'fastify-real-ip-override-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'server.sock')
  await app.listen({ path })
  const { get, close } = await plain.connect(0, { path })
  t.match(await get('/', ofClient), { ip: 'undefined', ips: [], protocol: 'http', hostname: '127.0.0.1' })
  app.realIp.setForwardedTrust(['unix', '10.0.0.0/8'])
  t.match(await get('/', ofClient), { ip: '203.0.113.7', ips: ['203.0.113.7'], protocol: 'https', host: 'shop.example:8443' })
  t.match(await get('/', { ...ofClient, 'x-forwarded-for': '127.0.0.5' }), { ip: '127.0.0.5', ips: ['127.0.0.5'] })
  await close()
})

t.test('without forwarded it is the connection\'s own answer', async (t) => {
  const [, port] = await serve(t, plain, { trustedPeers: [], overrideRequest: true })
  const { get, close } = await plain.connect(port)
  t.match(await get('/', ofClient), { ip: '127.0.0.1', ips: ['127.0.0.1'], protocol: 'http', hostname: '127.0.0.1' })
  await close()
})

t.test('beside trustProxy it is an error before anything is decorated', async (t) => {
  for (const trustProxy of [true, PROXY, [PROXY], () => true]) {
    const app = plain.create({ trustProxy })
    t.teardown(() => app.close())
    const listeners = app.server.listenerCount('connection')
    await t.rejects(async () => { await app.register(realIp, proxied) }, {
      code: 'FST_REAL_IP_INVALID_OPTION', message: /'overrideRequest' cannot be combined with Fastify's 'trustProxy'.*remove 'trustProxy'/
    })
    t.notOk(app.hasDecorator('realIp'))
    for (const name of ['realIp', 'realAddress']) t.notOk(app.hasRequestDecorator(name), name)
    t.equal(app.server.listenerCount('connection'), listeners)
    t.notOk(Object.hasOwn(app.server, 'emit'))
  }
})

t.test('a name that somebody else has decorated is an error', async (t) => {
  for (const name of ['ip', 'protocol', 'host']) {
    const app = plain.create()
    t.teardown(() => app.close())
    app.decorateRequest(name, { getter: () => 'theirs' })
    await t.rejects(async () => { await app.register(realIp, proxied) }, {
      code: 'FST_ERR_DEC_ALREADY_PRESENT', message: new RegExp(`'${name}'`)
    })
  }
})

t.test('requests of inject() and of child scopes', async (t) => {
  const app = plain.create()
  t.teardown(() => app.close())
  await app.register(realIp, proxied)
  await app.register(async (child) => { child.get('/child', seenBy) })
  const seen = await app.inject({ url: '/child', remoteAddress: '10.0.0.2', headers: ofClient })
  t.match(seen.json(), { ip: '203.0.113.7', protocol: 'https', host: 'shop.example:8443' })
  const [emptied] = await Promise.all([app.inject({ url: '/child', remoteAddress: '192.0.2.1', headers: ofClient })])
  t.match(emptied.json(), { ip: '192.0.2.1', protocol: 'http' })
})

t.test('Fastify\'s own log line has the client', { skip: oneLoopback }, async (t) => {
  const lines: Array<{ msg: string, req: object }> = []
  const stream = { write (line: string) { lines.push(JSON.parse(line)) } }
  const app = plain.create({ forceCloseConnections: true, logger: { stream } })
  await app.register(realIp, proxied)
  app.get('/', seenBy)
  t.teardown(() => app.close())
  const port = await listen(app)
  for (const localAddress of [PROXY, STRANGER]) {
    const { get, close } = await plain.connect(port, { localAddress })
    await get('/', ofClient)
    await close()
  }
  const [client, stranger] = lines.filter(({ msg }) => msg === 'incoming request').map(({ req }) => req)
  t.match(client, { method: 'GET', remoteAddress: '203.0.113.7', host: 'shop.example:8443' })
  t.match(stranger, { method: 'GET', remoteAddress: STRANGER, host: '127.0.0.1' })
})

t.test('without overrideRequest request.ip stays', { skip: oneLoopback }, async (t) => {
  const [, port] = await serve(t, plain, { forwarded })
  const { get, close, socket } = await plain.connect(port, { localAddress: PROXY })
  t.match(await get('/', ofClient), { ip: PROXY, protocol: 'http', hostname: '127.0.0.1' })
  await close()
  if (!socket.closed) await once(socket, 'close')
})
