import type { AddressInfo } from 'node:net'
import { restartable } from '@fastify/restartable'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { kinds } from '../kinds'

const PEER = '127.0.0.45'
const [http] = kinds

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
  const ask = async () => {
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
