import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { loadLibc, type Libc } from '../../lib/kernel/libc'
import { inLab } from '../lab/in-lab'
import { type Kind, kinds, listen, oneLoopback } from '../kinds'
import { logOf } from '../trust/log'

// HTTP proxies alone: 'forwarded' without 'trustedPeers'.

const linux = process.platform === 'linux'
const PROXY = '127.0.0.9'
const STRANGER = '127.0.0.66'
const [plain] = kinds as [Kind]
const xff = (value: string) => ({ 'x-forwarded-for': value })

async function serve (
  t: Test, kind: Kind, options: FastifyRealIpOptions, fastify: object = {}
): Promise<[app: FastifyInstance, port: number]> {
  const app = kind.create({ forceCloseConnections: true, ...fastify })
  await app.register(realIp, options)
  app.get('/', (request) => request.realAddress)
  app.get('/remote', (request) => JSON.stringify(request.socket.remoteAddress))
  t.teardown(() => app.close())
  return [app, await listen(app)]
}

for (const kind of kinds) {
  t.test(`${kind.name}: the header of a proxy in forwarded.trust counts, and nobody else's`, { skip: oneLoopback }, async (t) => {
    const { logger, codes } = logOf()
    const [, port] = await serve(t, kind, { forwarded: { trust: [PROXY, '10.0.0.0/8'] } }, { loggerInstance: logger })

    const proxy = await kind.connect(port, { localAddress: PROXY })
    const base = { address: PROXY, port: proxy.localPort }
    t.match(await proxy.get('/', xff('198.51.100.1, 203.0.113.7')), {
      address: '203.0.113.7', source: 'forwarded', trust: 'trusted', transportPeer: base, via: { ...base, trust: 'untrusted' }
    })
    t.match(await proxy.get('/', xff('203.0.113.8, 10.1.2.3')), { address: '203.0.113.8' }, 'a proxy in front of it')
    t.match(await proxy.get('/'), { ...base, source: 'transport-peer', reason: 'forwarded-missing', transportPeer: base })
    t.match(await proxy.get('/', xff('203.0.113.7, nonsense')), { ...base, reason: 'forwarded-malformed' })
    await proxy.close()
    t.same(codes, [], 'a proxy on this host is no side-car')

    const stranger = await kind.connect(port, { localAddress: STRANGER })
    const own = { address: STRANGER, port: stranger.localPort }
    for (const headers of [
      {}, xff('203.0.113.7'), xff(`203.0.113.7, ${PROXY}`), { forwarded: 'for=203.0.113.7' }, { 'x-real-ip': '203.0.113.7' }
    ]) {
      const answer = await stranger.get('/', headers)
      t.match(answer, { ...own, source: 'transport-peer', trust: 'untrusted', transportPeer: own }, JSON.stringify(headers))
      t.notHas(answer, { reason: String })
    }
    await stranger.close()
  })
}

t.test('no kernel source is asked', { skip: !linux && 'not Linux' }, async (t) => {
  const libc = loadLibc() as Libc
  const calls: string[] = []
  for (const name of ['getsockopt', 'getpeername', 'getsockname', 'readSavedSyn', 'openDiag'] as const) {
    const call = libc[name] as (...args: number[]) => unknown
    Object.assign(libc, {
      [name]: (...args: number[]) => {
        calls.push(name)
        return call(...args)
      }
    })
    t.teardown(() => Object.assign(libc, { [name]: call }))
  }
  const [, port] = await serve(t, plain, { forwarded: { trust: [PROXY] } })
  calls.splice(0)
  for (let n = 0; n < 3; n++) {
    const client = await plain.connect(port, { localAddress: PROXY })
    for (const address of ['203.0.113.7', '203.0.113.8']) t.match(await client.get('/', xff(address)), { address, attempts: [] })
    t.same(calls.splice(0), ['readSavedSyn'], 'one call for each connection, which tells the sender')
    await client.close()
  }
})

t.test('one header, whatever its name', { skip: oneLoopback }, async (t) => {
  for (const [header, value, address] of [
    ['cf-connecting-ip', '203.0.113.7', '203.0.113.7'],
    ['X-Real-IP', '2001:db8::7', '2001:db8::7'],
    ['x-our-own-client', ' 203.0.113.7 ', '203.0.113.7'],
    ['cloudfront-viewer-address', '2001:db8::7:443', '2001:db8::7'],
    ['forwarded', 'for="[2001:db8::7]:443"', '2001:db8::7']
  ] as const) {
    const [, port] = await serve(t, plain, { forwarded: { trust: [PROXY], header } })
    for (const [localAddress, expected] of [
      [PROXY, { address, source: 'forwarded', trust: 'trusted' }],
      [STRANGER, { address: STRANGER, source: 'transport-peer', trust: 'untrusted' }]
    ] as const) {
      const client = await plain.connect(port, { localAddress })
      t.match(await client.get('/', { ...xff('198.51.100.1'), [header]: value }), expected, `${header} from ${localAddress}`)
      t.match(await client.get('/', xff('198.51.100.1')), { address: localAddress }, 'another header is nobody\'s')
      if (localAddress === PROXY && header !== 'forwarded') {
        t.match(await client.get('/', { [header]: [value, value] }), { address: PROXY, reason: 'forwarded-malformed' }, 'two lines')
        t.match(await client.get('/', { [header]: `${value}, ${value}` }), { address: PROXY, reason: 'forwarded-malformed' }, 'a list')
      }
      await client.close()
    }
  }
})

t.test('of more lines than Node.js keeps, the last of which would be the proxy\'s own, none counts', { skip: oneLoopback }, async (t) => {
  for (const [header, most] of [['x-forwarded-for', null], ['cf-connecting-ip', null], ['forwarded', 40], ['x-forwarded-for', 0]] as const) {
    const [app, port] = await serve(t, plain, { forwarded: { trust: [PROXY], header } })
    app.server.maxHeadersCount = most
    const ask = async (fillers: number) => {
      const socket = connect({ port, host: '127.0.0.1', localAddress: PROXY })
      const line = (address: string) => `${header}: ${header === 'forwarded' ? `for=${address}` : address}\r\n`
      const appended = header === 'cf-connecting-ip' ? '' : line('203.0.113.7')
      socket.end(`GET / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n${line('198.51.100.66')}${'a:b\r\n'.repeat(fillers)}${appended}\r\n`)
      return JSON.parse((await text(socket)).split('\r\n\r\n')[1]!)
    }
    const whole = { address: header === 'cf-connecting-ip' ? '198.51.100.66' : '203.0.113.7', source: 'forwarded' }
    t.match(await ask(30), whole, `${header} among few`)
    const cut = { address: PROXY, source: 'transport-peer', reason: 'forwarded-malformed' }
    const answer = await ask(1200)
    // Newer versions of Node.js refuse the request.
    const expected = answer.statusCode === 431 ? { message: 'Exceeded maximum allowed HTTP header size' } : cut
    t.match(answer, most === 0 ? whole : expected, `${header} among many`)
  }
})

t.test('the list of proxies is swapped under live connections', { skip: oneLoopback }, async (t) => {
  for (const kind of kinds) {
    const [app, port] = await serve(t, kind, { forwarded: { trust: [] } })
    const client = await kind.connect(port, { localAddress: PROXY })
    const ask = () => client.get('/', xff('203.0.113.7'))
    t.match(await ask(), { address: PROXY, trust: 'untrusted' }, kind.name)
    app.realIp.setForwardedTrust(['127.0.0.0/8'])
    t.match(await ask(), { address: '203.0.113.7', source: 'forwarded', trust: 'trusted' })
    for (const wrong of [undefined, null, PROXY, [''], ['10.0.0.1/8'], ['127.0.0.9', 'nonsense'], ['any'], [7]] as never[]) {
      t.throws(() => app.realIp.setForwardedTrust(wrong), { code: 'FST_REAL_IP_INVALID_OPTION' }, JSON.stringify(wrong))
      t.match(await ask(), { address: '203.0.113.7' }, 'nothing has changed')
    }
    const list = [PROXY]
    app.realIp.setForwardedTrust(list)
    list[0] = '10.0.0.1'
    t.match(await ask(), { address: '203.0.113.7' }, 'the list was copied')
    app.realIp.setForwardedTrust([])
    t.match(await ask(), { address: PROXY, trust: 'untrusted' })
    await client.close()
  }
})

t.test('a request keeps the answer that it has when the list is swapped', { skip: oneLoopback }, async (t) => {
  const app = plain.create({ forceCloseConnections: true })
  await app.register(realIp, { forwarded: { trust: [PROXY] } })
  app.get('/', async (request) => {
    const before = request.realAddress
    app.realIp.setForwardedTrust([])
    await new Promise((resolve) => setImmediate(resolve))
    return [before.address, request.realIp, request.realAddress.address, app.realIp.lookup(request).address]
  })
  t.teardown(() => app.close())
  const client = await plain.connect(await listen(app), { localAddress: PROXY })
  t.same(await client.get('/', xff('203.0.113.7')), Array(4).fill('203.0.113.7'))
  t.same(await client.get('/', xff('203.0.113.7')), Array(4).fill(PROXY), 'the next one has the new list')
  await client.close()
})

t.test('what can be swapped only where it was given', async (t) => {
  const [proxied] = await serve(t, plain, { forwarded: { trust: [] } })
  t.throws(() => proxied.realIp.setTrustedPeers([]), {
    code: 'FST_REAL_IP_INVALID_OPTION', message: /'trustedPeers' can be replaced only if the plugin was registered with it/
  })
  for (const options of [{}, { trustedPeers: [] }, { trustedPeers: 'any' as const }]) {
    const [app] = await serve(t, plain, options)
    t.throws(() => app.realIp.setForwardedTrust([]), { code: 'FST_REAL_IP_INVALID_OPTION', message: /only if the plugin was registered with 'forwarded'/ })
  }
})

inLab('beside a module that rewrites getpeername the base is the transport peer', async (t, lab) => {
  lab.module.start()
  const balancer = await lab.client({ address: '203.0.113.99', port: 51234 })
  for (const kind of kinds) {
    lab.enterServer()
    const [, port] = await serve(t, kind, { forwarded: { trust: [PROXY] } })
    balancer.enter()
    for (const [localAddress, stamp, expected] of [
      // A claim that names a proxy opens nothing, and one that names somebody else closes nothing.
      [STRANGER, PROXY, { address: STRANGER, source: 'transport-peer', trust: 'untrusted', reason: undefined }],
      [PROXY, '203.0.113.99', { address: '203.0.113.7', source: 'forwarded', trust: 'trusted' }]
    ] as const) {
      balancer.set({ address: stamp, port: 51234 })
      const client = await kind.connect(port, { localAddress })
      t.equal(await client.get('/remote'), stamp, 'what Node.js takes for the sender')
      const answer = await client.get('/', xff('203.0.113.7'))
      const transportPeer = { address: localAddress, port: client.localPort }
      t.match({ reason: undefined, ...answer }, { ...expected, transportPeer }, `${kind.name}, ${localAddress}`)
      await client.close()
    }
  }
  lab.enterServer()
})
