import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { restartable } from '@fastify/restartable'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import realIp, { encodeProxyHeader, type FastifyRealIpOptions } from 'fastify-real-ip'
import { holdSearches } from '../kernel/held-searches'
import { bothLocalhosts, noIPv6 } from '../kinds'

// Connections that are held while @fastify/restartable replaces the application on the same server.

if (process.platform !== 'linux') {
  t.plan(0, 'connections are held on Linux alone')
  process.exit()
}

const PEER = '127.0.0.46'
const LONG = 60_000
const get = 'GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'
const header = encodeProxyHeader({ source: { address: '203.0.113.7', port: 51234 }, destination: { address: '198.51.100.1', port: 443 } })
const listed: FastifyRealIpOptions = { trustedPeers: [PEER] }
const proxied: FastifyRealIpOptions = { ...listed, sources: ['proxy-protocol'], proxyProtocol: { timeout: LONG } }

interface App extends FastifyInstance { restart (): Promise<void> }

interface Served {
  app: App
  options: FastifyRealIpOptions
  /** Called by each new application, after the plugin is registered. */
  prepare: (app: FastifyInstance) => unknown
  /** How often a connection reached the listeners of the server. */
  connections: number
}

async function serve (t: Test, options: FastifyRealIpOptions, host = '127.0.0.1'): Promise<Served> {
  const served: Served = { app: undefined as never, options, prepare: () => {}, connections: 0 }
  served.app = await restartable(async (fastify, given) => {
    const made = fastify(given) as unknown as FastifyInstance
    await made.register(realIp, served.options)
    made.get('/', (request) => request.realAddress)
    await served.prepare(made)
    return made as never
  }, { forceCloseConnections: true } as never) as unknown as App
  let isClosed = false
  t.teardown(() => isClosed || served.app.close())
  served.app.server.on('close', () => { isClosed = true })
  await served.app.listen({ host, port: 0 })
  served.app.server.on('connection', () => { served.connections++ })
  return served
}

interface Client {
  readonly socket: net.Socket
  /** What it heard until the end; `'reset'` if nothing. */
  readonly end: Promise<string>
}

function connect ({ app }: Served, ...says: Array<string | Buffer>): Client {
  const { port } = app.server.address() as AddressInfo
  const socket = net.connect({ port, host: '127.0.0.1', localAddress: PEER })
  let heard = ''
  socket.on('data', (part) => { heard += String(part) }).on('error', () => {})
  for (const bytes of says) socket.write(bytes)
  return { socket, end: new Promise((resolve) => { socket.once('close', () => { resolve(heard === '' ? 'reset' : heard) }) }) }
}

/** A connection of which the server has read so much of its header. */
async function holdHeader (served: Served, part: Buffer): Promise<Client> {
  const accepted = new Promise<net.Socket>((resolve) => {
    const { emit } = served.app.server
    served.app.server.emit = function (this: net.Server, name: string, ...rest: unknown[]) {
      if (name === 'connection') {
        served.app.server.emit = emit
        resolve(rest[0] as net.Socket)
      }
      return (emit as (...all: unknown[]) => boolean).call(this, name, ...rest)
    } as typeof emit
  })
  const client = connect(served, part)
  const socket = await accepted
  while (socket.bytesRead < part.length) await setImmediate()
  return client
}

const trustOf = (answer: string): unknown => /"trust":"(\w+)"/.exec(answer)?.[1] ?? answer

t.test('a connection whose sender is looked for is ruled on by who serves then', async (t) => {
  const served = await serve(t, listed)
  for (const [options, expected] of [
    [{ trustedPeers: [] }, 'untrusted'],
    [{ ...listed, missing: 'reject' }, 'reset'],
    [listed, 'trusted'],
    [{ ...listed, unverified: 'reject' }, 'trusted'],
    [{ admit: () => false }, 'reset'],
    [{}, 'unchecked']
  ] as const) {
    served.options = listed
    await served.app.restart()
    const searches = holdSearches(t)
    const before = served.connections
    const client = connect(served, get)
    await searches.waiting()
    served.options = options as FastifyRealIpOptions
    await served.app.restart()
    for (let turn = 0; turn < 10; turn++) await setImmediate()
    t.equal(served.connections, before, 'not handed over by a restart')
    t.equal(client.socket.destroyed, false, 'nor ended')
    t.equal(searches.size, 1)
    searches.release()
    t.equal(trustOf(await client.end), expected, JSON.stringify(options))
    t.equal(served.connections, expected === 'reset' ? before : before + 1)
    t.match(served.app.realIp.stats(), { connections: 1, rejected: expected === 'reset' ? 1 : 0 }, 'counted by who rules')
  }
})

t.test('one that is held by an application without PROXY headers, and taken over by one that expects them', async (t) => {
  const served = await serve(t, listed)
  const searches = holdSearches(t)
  const clients = [connect(served, header, get), connect(served, get)]
  await searches.waiting(2)
  served.options = proxied
  await served.app.restart()
  searches.release()
  const [said, silent] = await Promise.all(clients.map(({ end }) => end))
  t.match(said, /"address":"203\.0\.113\.7"/)
  t.equal(silent, 'reset')
  t.match(served.app.realIp.stats(), { connections: 2, rejected: 1, reason: { 'proxy-missing': 1 } })
})

t.test('a connection whose PROXY header is not complete is ruled on by who serves then', async (t) => {
  const served = await serve(t, proxied)
  for (const [options, expected, reason] of [
    [proxied, '203.0.113.7'],
    [{ ...proxied, trustedPeers: [PEER, '127.0.0.1'] }, '203.0.113.7'],
    // A stranger's bytes are no header.
    [{ ...proxied, trustedPeers: ['127.0.0.1'] }, 400],
    [{ ...proxied, trustedPeers: ['127.0.0.1'], untrusted: 'reject' }, 'reset', 'untrusted-peer'],
    [{ ...proxied, proxyProtocol: { from: ['127.0.0.1'] } }, 400],
    [listed, 400],
    [{}, 400]
  ] as Array<[FastifyRealIpOptions, unknown, string?]>) {
    served.options = proxied
    await served.app.restart()
    const before = served.connections
    const client = await holdHeader(served, header.subarray(0, 20))
    served.options = options
    await served.app.restart()
    for (let turn = 0; turn < 10; turn++) await setImmediate()
    t.equal(served.connections, before)
    t.equal(client.socket.destroyed, false)
    client.socket.write(Buffer.concat([header.subarray(20), Buffer.from(get)]))
    const end = await client.end
    t.equal(/"address":"([^"]+)"/.exec(end)?.[1] ?? (end.startsWith('HTTP/1.1 400') ? 400 : end), expected, JSON.stringify(options))
    const { connections, rejected, reason: reasons } = served.app.realIp.stats()
    t.same([connections, rejected], [1, expected === 'reset' ? 1 : 0])
    if (reason !== undefined) t.equal(reasons[reason as keyof typeof reasons], 1, reason)
  }
})

t.test('a restart that fails leaves what is held to the former application', async (t) => {
  const failures: Array<[string, (served: Served) => void]> = [
    ['while it is made', (served) => { served.prepare = () => { throw new Error('no database') } }],
    ['in its options', (served) => { served.options = { trustedPeers: ['nonsense'] } }],
    ['in its onReady hook', (served) => {
      served.prepare = (app) => app.addHook('onReady', async () => { throw new Error('no database') })
    }]
  ]
  for (const [what, fail] of failures) {
    await t.test(what, async (t) => {
      const served = await serve(t, proxied)
      const first = await holdHeader(served, header.subarray(0, 20))
      const searches = holdSearches(t)
      const second = connect(served, header, get)
      await searches.waiting()
      served.options = { trustedPeers: [] }
      fail(served)
      await t.rejects(served.app.restart())
      for (let turn = 0; turn < 10; turn++) await setImmediate()
      t.same([first.socket.destroyed, second.socket.destroyed, served.connections], [false, false, 0])
      searches.release()
      first.socket.write(Buffer.concat([header.subarray(20), Buffer.from(get)]))
      for (const { end } of [first, second]) t.match(await end, /"address":"203\.0\.113\.7".*"trust":"trusted"/)
      t.match(served.app.realIp.stats(), { connections: 2, rejected: 0 })

      // What failed holds nothing open: the last that serves ends what is held.
      const searched = connect(served, get)
      await searches.waiting()
      await served.app.close()
      t.equal(await searched.end, 'reset')
      t.equal(served.connections, 2)
    })
  }
})

t.test('what is held when the last application closes is ended at once', async (t) => {
  const served = await serve(t, proxied)
  await served.app.restart()
  const first = await holdHeader(served, header.subarray(0, 20))
  const searches = holdSearches(t)
  const second = connect(served, header, get)
  await searches.waiting()
  const closed = once(served.app.server, 'close')
  await served.app.close()
  await closed
  t.same(await Promise.all([first.end, second.end]), ['reset', 'reset'])
  t.equal(served.connections, 0)
  searches.release()
  for (let turn = 0; turn < 10; turn++) await setImmediate()
  t.equal(served.connections, 0)
})

/** The trust of a client of this address; `'reset'`; or the code of an error. */
async function ask (port: number, host: string): Promise<unknown> {
  const socket = net.connect({ port, host })
  let heard = ''
  let code = 'reset'
  socket.on('data', (part) => { heard += String(part) }).on('error', (error: NodeJS.ErrnoException) => { code = String(error.code) })
  socket.write(get)
  await new Promise((resolve) => { socket.once('close', resolve) })
  return heard === '' ? code.replace('ECONNRESET', 'reset') : trustOf(heard)
}

t.test("listen({ host: 'localhost' }) under @fastify/restartable", { skip: noIPv6 }, async (t) => {
  bothLocalhosts(t)
  const served = await serve(t, { trustedPeers: ['loopback'] }, 'localhost')
  const { port, address } = served.app.server.address() as AddressInfo
  // Fastify opens further servers only where there is no serverFactory.
  t.equal(address, '127.0.0.1')
  t.same([await ask(port, '127.0.0.1'), await ask(port, '::1')], ['trusted', 'ECONNREFUSED'])
  served.options = { trustedPeers: [] }
  await served.app.restart()
  t.same([await ask(port, '127.0.0.1'), await ask(port, '::1')], ['untrusted', 'ECONNREFUSED'])
})

t.test("the second server of listen({ host: 'localhost' }), where another application takes over the first", { skip: noIPv6 }, async (t) => {
  bothLocalhosts(t)
  const first = Fastify({ forceCloseConnections: true })
  await first.register(realIp, { trustedPeers: ['loopback'] })
  first.get('/', (request) => request.realAddress)
  await first.listen({ host: 'localhost', port: 0 })
  const { server } = first
  const { port } = server.address() as AddressInfo
  const hosts = ['127.0.0.1', '::1'] as const
  const askBoth = async () => [await ask(port, hosts[0]), await ask(port, hosts[1])]
  t.same(await askBoth(), ['trusted', 'trusted'])

  const { listen, close } = server
  server.listen = (() => {
    server.emit('listening')
    return server
  }) as typeof listen
  server.close = (() => server) as typeof close
  let isAdmitted = true
  const next = Fastify({ forceCloseConnections: true, serverFactory: () => server })
  await next.register(realIp, { trustedPeers: ['::1'], admit: () => isAdmitted })
  await next.listen({ host: '127.0.0.1', port })
  // The routes of the second server stay the first application's, with its list. Its connections are the new one's.
  t.same(await askBoth(), ['trusted', 'trusted'])
  t.match(next.realIp.stats(), { connections: 2, trust: { trusted: 1, untrusted: 1 } })
  isAdmitted = false
  t.same(await askBoth(), ['reset', 'reset'])
  const searches = holdSearches(t)
  const held = hosts.map((host) => ask(port, host))
  await searches.waiting(2)
  isAdmitted = true
  searches.release()
  t.same(await Promise.all(held), ['trusted', 'trusted'])
  t.match(next.realIp.stats(), { connections: 6, rejected: 2 })

  Object.assign(server, { listen, close })
  await Promise.all([first.close(), next.close()])
  t.same(await askBoth(), ['ECONNREFUSED', 'ECONNREFUSED'])
})
