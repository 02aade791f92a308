import { spawnSync } from 'node:child_process'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import net from 'node:net'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import realIp, { type ConnectionMessage, type FastifyRealIpOptions, type Stats } from 'fastify-real-ip'
import { loadLibc, type Libc } from '../../lib/kernel/libc'
import { createEndpoint } from '../../lib/kernel/sockaddr'
import { Tally } from '../../lib/trust/tally'
import { holdSearches } from '../kernel/held-searches'
import { kinds, listen } from '../kinds'

const linux = process.platform === 'linux'
const plain = kinds[0]!
const libc = loadLibc() as Libc

async function create (t: Test, options: FastifyRealIpOptions = {}, kind = plain): Promise<FastifyInstance> {
  const app = kind.create()
  t.teardown(() => app.close())
  await app.register(realIp, options)
  app.get('/', (request) => [request.realIp])
  return app
}

/** One connection with some requests. */
async function visit (port: number, localAddress: string, requests = 1, kind = plain): Promise<void> {
  const client = await kind.connect(port, { localAddress })
  for (let n = 0; n < requests; n++) await client.get('/')
  await client.close()
}

const closed = (socket: net.Socket) => new Promise((resolve) => {
  if (socket.closed) resolve(undefined)
  else socket.on('error', () => {}).on('close', resolve)
})

const portOf = (app: FastifyInstance) => (app.server.address() as net.AddressInfo).port

/** One connection that is reset. */
async function visitInVain (port: number, localAddress: string): Promise<void> {
  const socket = net.connect({ port, host: '127.0.0.1', localAddress })
  await closed(socket)
}

/** What is not zero. */
function counted ({ connections, rejected, ...counts }: Stats): object {
  const known = Object.entries(counts).map(([name, by]) => [name, Object.fromEntries(Object.entries(by).filter(([, count]) => count !== 0))])
  return { connections, rejected, ...Object.fromEntries(known) }
}

t.test('counts each connection once, on every kind of server', { skip: !linux && 'not Linux' }, async (t) => {
  for (const kind of kinds) {
    const app = await create(t, { sources: ['getpeername'] }, kind)
    t.same(counted(app.realIp.stats()), { connections: 0, rejected: 0, source: {}, trust: {}, reason: {} })
    const port = await listen(app)
    for (let n = 0; n < 3; n++) await visit(port, '127.0.0.1', 2, kind)
    await app.inject('/')
    t.same(counted(app.realIp.stats()), { connections: 3, rejected: 0, source: { getpeername: 3 }, trust: { unchecked: 3 }, reason: {} }, kind.name)
  }
})

t.test('by what the policy decided when it was made', { skip: !linux && 'not Linux' }, async (t) => {
  const app = await create(t, { trustedPeers: ['127.0.0.1', '127.0.0.2'] })
  const port = await listen(app)
  for (const address of ['127.0.0.1', '127.0.0.2', '127.0.0.3']) await visit(port, address)
  const before = {
    connections: 3, rejected: 0, source: { 'transport-peer': 3 }, trust: { trusted: 2, untrusted: 1 }, reason: { 'no-toa': 2 }
  }
  t.same(counted(app.realIp.stats()), before)

  const client = await plain.connect(port, { localAddress: '127.0.0.3' })
  await client.get('/')
  app.realIp.setTrustedPeers(['127.0.0.3'])
  t.same(await client.get('/'), ['127.0.0.3'])
  await client.close()
  t.same(counted(app.realIp.stats()), { ...before, connections: 4, source: { 'transport-peer': 4 }, trust: { trusted: 2, untrusted: 2 } }, 'nothing is counted again')
})

t.test('what is rejected is counted too', { skip: !linux && 'not Linux' }, async (t) => {
  const strict = await create(t, { trustedPeers: ['127.0.0.1'], missing: 'reject' })
  await visitInVain(await listen(strict), '127.0.0.1')
  t.same(counted(strict.realIp.stats()), { connections: 1, rejected: 1, source: { 'transport-peer': 1 }, trust: { trusted: 1 }, reason: { 'no-toa': 1 } })

  const picky = await create(t, { sources: ['getpeername'], admit: ({ address }) => address === '127.0.0.1' })
  const port = await listen(picky)
  await visit(port, '127.0.0.1')
  await visitInVain(port, '127.0.0.2')
  t.same(counted(picky.realIp.stats()), { connections: 2, rejected: 1, source: { getpeername: 2 }, trust: { unchecked: 2 }, reason: {} })
})

t.test('a connection whose sender is looked for is counted when he is found', { skip: !linux && 'not Linux' }, async (t) => {
  const app = await create(t, { trustedPeers: [], missing: 'reject' })
  const port = await listen(app)
  const searches = holdSearches(t)
  const messages = listenIn(t)
  const connect = async (port: number) => {
    const [client] = await Promise.all([plain.connect(port), searches.waiting()])
    return client
  }
  const client = await connect(port)
  t.equal(app.realIp.stats().connections, 0)
  t.equal(messages.length, 0)
  const decided = once(app.server, 'connection')
  searches.release(undefined)
  await decided
  t.same(counted(app.realIp.stats()), { connections: 1, rejected: 0, source: { none: 1 }, trust: { unverified: 1 }, reason: { implausible: 1 } })
  t.match(messages[0]?.realAddress, { source: 'none', trust: 'unverified', reason: 'implausible' })
  t.same(await client.get('/'), [null], 'request.realIp is undefined')
  await client.close()

  // Without a policy, what cannot be true is looked for: loopback that is not this host's own.
  const { getsockname } = libc
  t.teardown(() => { libc.getsockname = getsockname })
  libc.getsockname = () => constants.errno.ENOBUFS
  const unset = await create(t, { sources: ['getpeername'] })
  const local = await connect(await listen(unset))
  const settle = async (...peer: Parameters<typeof searches.release>) => {
    const decided = once(unset.server, 'connection')
    searches.release(...peer)
    await decided
  }
  await settle(undefined)
  t.same(counted(unset.realIp.stats()), { connections: 1, rejected: 0, source: { none: 1 }, trust: { unchecked: 1 }, reason: { implausible: 1 } })
  await local.close()

  const other = await connect(portOf(unset))
  await settle({ ...createEndpoint(), w3: 0x0a000002, port: 80 })
  t.match(counted(unset.realIp.stats()), { connections: 2, source: { none: 1, 'transport-peer': 1 }, reason: { implausible: 2 } }, 'what is found makes a difference')
  const last = await connect(portOf(unset))
  await settle(undefined)
  t.match(counted(unset.realIp.stats()), { connections: 3, source: { none: 2, 'transport-peer': 1 } })
  for (const client of [other, last]) await client.close()

  const refused = await create(t, { trustedPeers: [], unverified: 'reject' })
  const again = await connect(await listen(refused))
  searches.release(undefined)
  await closed(again.socket)
  t.same(counted(refused.realIp.stats()), { connections: 1, rejected: 1, source: { none: 1 }, trust: { unverified: 1 }, reason: { implausible: 1 } })
})

t.test('connections without an IP address', { skip: process.platform === 'win32' && 'no Unix-domain sockets' }, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'real-ip-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  for (const [trust, options] of [['unchecked', {}], ['trusted', { trustedPeers: 'any' }]] as const) {
    const app = await create(t, options)
    const path = join(folder, trust)
    await app.listen({ path })
    const [response] = await once(http.get({ socketPath: path, path: '/', agent: false }), 'response') as [http.IncomingMessage]
    response.resume()
    await once(response, 'end')
    t.same(counted(app.realIp.stats()), { connections: 1, rejected: 0, source: { none: 1 }, trust: { [trust]: 1 }, reason: { 'no-address': 1 } })
  }
})

t.test('answers are counted together where they are alike, and apart where anything differs', async (t) => {
  const tally = new Tally()
  const answers: ReadonlyArray<Parameters<Tally['count']>> = [
    ['none', 'unchecked', 'closed', false], ['none', 'unchecked', 'no-address', true], ['none', 'untrusted', 'closed', false], ['peer', 'unchecked', 'closed', false]
  ]
  for (let n = 0; n < 2; n++) for (const answer of answers) tally.count(...answer)
  t.same(counted(tally.read()), {
    connections: 8,
    rejected: 2,
    source: { none: 6, peer: 2 },
    trust: { unchecked: 6, untrusted: 2 },
    reason: { closed: 6, 'no-address': 2 }
  })
})

t.test('what stats() gives does not change', async (t) => {
  const app = await create(t)
  const port = await listen(app)
  const before = app.realIp.stats()
  const zero = structuredClone(before)
  await visit(port, '127.0.0.1')
  t.same(before, zero)
  t.equal(app.realIp.stats().connections, 1)
})

t.test('scopes of one server have its numbers, another server has its own', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  const scopes: FastifyInstance[] = []
  for (const name of ['a', 'b']) {
    await app.register(async (child) => {
      await child.register(realIp)
      child.get(`/${name}`, () => [])
      scopes.push(child)
    })
  }
  const other = await create(t)
  await listen(other)
  const client = await plain.connect(await listen(app))
  for (const name of ['a', 'b']) await client.get(`/${name}`)
  await client.close()
  t.same(scopes.map((scope) => scope.realIp.stats().connections), [1, 1])
  t.equal(other.realIp.stats().connections, 0)
})

function listenIn (t: Test): ConnectionMessage[] {
  const messages: ConnectionMessage[] = []
  const onMessage = (message: unknown) => { messages.push(message as ConnectionMessage) }
  subscribe('fastify-real-ip:connection', onMessage)
  t.teardown(() => unsubscribe('fastify-real-ip:connection', onMessage))
  return messages
}

t.test('the diagnostics channel has each connection, before anything was read from it', { skip: !linux && 'not Linux' }, async (t) => {
  for (const kind of kinds) {
    const app = await create(t, { trustedPeers: [] }, kind)
    const port = await listen(app)
    const messages = listenIn(t)
    const raw: net.Socket[] = []
    app.server.on('connection', (socket) => {
      raw.push(socket)
      t.equal(messages.length, 1, 'already published')
      t.equal(socket.bytesRead, 0)
    })
    await visit(port, '127.0.0.8', 2, kind)
    t.equal(messages.length, 1)
    const [{ socket, realAddress }] = messages as [ConnectionMessage]
    t.equal(socket, raw[0])
    t.match(realAddress, { address: '127.0.0.8', source: 'transport-peer', trust: 'untrusted' })
    t.equal(app.realIp.lookup(socket), realAddress)
  }
})

t.test('a subscriber sees rejected connections', { skip: !linux && 'not Linux' }, async (t) => {
  const app = await create(t, { admit: () => false })
  const port = await listen(app)
  const messages = listenIn(t)
  await visitInVain(port, '127.0.0.8')
  t.equal(messages.length, 1)
  t.equal(messages[0]?.realAddress.address, '127.0.0.8')
  t.ok(messages[0]?.socket.destroyed)
})

t.test('NODE_DEBUG=fastify-real-ip: a line for each connection', async (t) => {
  const program = `
    const { Tally } = require(${JSON.stringify(require.resolve('../../lib/trust/tally'))})
    const transportPeer = { address: '10.0.0.2' }
    new Tally().publish({}, { address: '203.0.113.7', source: 'vtoa', trust: 'trusted', transportPeer })
    new Tally().publish({}, { address: '10.0.0.2', source: 'transport-peer', trust: 'trusted', reason: 'no-toa', transportPeer })`
  const { stderr } = spawnSync(process.execPath, ['-e', program], { encoding: 'utf8', env: { ...process.env, NODE_DEBUG: 'fastify-real-ip' } })
  t.match(stderr, /: 203\.0\.113\.7 by vtoa, trusted, sent by 10\.0\.0\.2\n.*: 10\.0\.0\.2 by transport-peer, trusted \(no-toa\), sent by 10\.0\.0\.2\n$/)
})
