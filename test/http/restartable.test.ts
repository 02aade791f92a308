import type { AddressInfo } from 'node:net'
import { restartable } from '@fastify/restartable'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { kinds } from '../kinds'

const PEER = '127.0.0.45'
const [http] = kinds

interface App extends FastifyInstance { restart (): Promise<void> }

const start = async (optionsOf: () => FastifyRealIpOptions): Promise<App> => {
  const app = await restartable(async (fastify, given) => {
    const made = fastify(given) as unknown as FastifyInstance
    await made.register(realIp, optionsOf())
    made.get('/', (request) => request.realAddress)
    return made as never
  }, {}) as unknown as App
  await app.listen({ host: '127.0.0.1', port: 0 })
  return app
}

/** What the server makes of a request on a connection of its own. */
async function askOnce (port: number): Promise<unknown> {
  try {
    const client = await http!.connect(port, { localAddress: PEER })
    client.socket.on('error', () => {})
    const answer = await client.get('/')
    await client.close()
    return answer
  } catch {
    return 'reset'
  }
}

t.test('what an application without a policy found is no evidence to one that has a policy', {
  skip: process.platform !== 'linux' && 'not Linux'
}, async (t) => {
  const asked: Array<string | undefined> = []
  for (const [options, expected] of [
    [{ trustedPeers: [PEER] }, { source: 'none', trust: 'unverified' }],
    [{ trustedPeers: [PEER], unverified: 'reject' }, 'closed'],
    [{ admit: ({ address }) => asked.push(address) > 0 }, { address: PEER, trust: 'unchecked' }],
    [{ admit: () => false }, 'closed']
  ] as Array<[FastifyRealIpOptions, unknown]>) {
    let now: FastifyRealIpOptions = {}
    const app = await start(() => now)
    const { port } = app.server.address() as AddressInfo
    const client = await http!.connect(port, { localAddress: PEER })
    client.socket.on('error', () => {})
    t.match(await client.get('/'), { address: PEER, trust: 'unchecked' })
    now = options
    await app.restart()
    t.match(await client.get('/').catch(() => 'closed'), expected, JSON.stringify(options))
    if (expected !== 'closed') t.match(await client.get('/'), expected, 'and so the next request')
    client.socket.destroy()
    await app.close()
  }
  t.same(asked, [PEER], 'admit is asked once')
})

t.test('each application asks its own admit about a connection that lives on', async (t) => {
  const asked: string[] = []
  let now: FastifyRealIpOptions = { admit: () => asked.push('the first') > 0 }
  const app = await start(() => now)
  t.teardown(() => app.close())
  const client = await http!.connect((app.server.address() as AddressInfo).port, { localAddress: '127.0.0.1' })
  client.socket.on('error', () => {})
  t.match(await client.get('/'), { address: '127.0.0.1' })
  now = { admit: () => asked.push('the second') < 0 }
  await app.restart()
  t.equal(await client.get('/').catch(() => 'closed'), 'closed')
  t.same(asked, ['the first', 'the second'])
})

t.test('a server that @fastify/restartable restarts in place has a policy at any time', {
  skip: process.platform !== 'linux' && 'not Linux'
}, async (t) => {
  let options: FastifyRealIpOptions = { trustedPeers: [PEER] }
  let fails = false
  const app = await restartable(async (fastify, given) => {
    const made = fastify(given) as unknown as FastifyInstance
    await made.register(realIp, options)
    made.get('/', (request) => request.realAddress)
    if (fails) throw new Error('not this time')
    return made as never
  }, {}) as unknown as FastifyInstance & { restart (): Promise<void> }
  t.teardown(() => app.close())
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const ask = () => askOnce(port)

  t.match(await ask(), { address: PEER, trust: 'trusted', reason: 'no-toa' })
  options = { trustedPeers: [] }
  await app.restart()
  t.match(await ask(), { address: PEER, trust: 'untrusted' }, 'other options take force')
  t.equal(app.realIp.stats().connections, 1, 'counted by the application that decides')
  options = { trustedPeers: [PEER], missing: 'reject' }
  await app.restart()
  t.equal(await ask(), 'reset')

  options = { trustedPeers: [PEER] }
  fails = true
  await t.rejects(app.restart(), { message: 'not this time' })
  t.equal(await ask(), 'reset', 'a restart that fails leaves the former policy')
  fails = false
  await app.restart()
  t.match(await ask(), { trust: 'trusted' })
})

t.test('the same options again: the policy holds after each restart', {
  skip: process.platform !== 'linux' && 'not Linux'
}, async (t) => {
  for (const [options, expected] of [
    [{ trustedPeers: [PEER] }, { address: PEER, trust: 'trusted', transportPeer: { address: PEER } }],
    [{ trustedPeers: [PEER], missing: 'reject' }, 'reset']
  ] as Array<[FastifyRealIpOptions, unknown]>) {
    const app = await start(() => options)
    t.teardown(() => app.close())
    const { port } = app.server.address() as AddressInfo
    for (let restarts = 0; restarts < 3; restarts++) {
      t.match(await askOnce(port), expected, `${restarts} restarts`)
      t.match(app.realIp.stats(), { connections: 1, rejected: expected === 'reset' ? 1 : 0 })
      await app.restart()
    }
  }
})
