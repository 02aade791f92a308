import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { loadLibc, type Libc } from '../../lib/kernel/libc'
import { TransportPeers } from '../../lib/kernel/peer-search'
import { Warnings } from '../../lib/warnings'
import { kinds, listen } from '../kinds'
import { logOf } from './log'

// Warnings that take a module to come up: test/lab/trust-live.test.ts.

const onLinux = { skip: process.platform !== 'linux' && 'not Linux' }
const [http] = kinds

async function warned (t: Test, options: FastifyRealIpOptions, more: (app: FastifyInstance) => unknown = () => {}): Promise<string[]> {
  const { logger, codes } = logOf()
  const app = Fastify({ loggerInstance: logger })
  t.teardown(() => app.close())
  await app.register(realIp, options)
  app.get('/', (request) => request.realAddress)
  await more(app)
  return codes.map((code) => code.replace('FST_REAL_IP_', ''))
}

const visits = (...localAddresses: string[]) => async (app: FastifyInstance) => {
  const port = await listen(app)
  for (const localAddress of localAddresses) {
    const client = await http!.connect(port, { localAddress })
    await client.get('/')
    await client.close()
  }
}

t.test('a kernel source without trustedPeers can be forged', onLinux, async (t) => {
  t.same(await warned(t, {}, visits('127.0.0.20', '127.0.0.21')), ['FORGEABLE'])
  t.same(await warned(t, { sources: ['vtoa'] }), ['FORGEABLE'])
  t.same(await warned(t, {}, async (app) => {
    await app.register(realIp)
    await app.register(async (child) => { await child.register(realIp) })
  }), ['FORGEABLE'], 'once, however often it is registered')
  t.same(await warned(t, { trustedPeers: 'any' }, visits('127.0.0.20')), [])
  t.same(await warned(t, { trustedPeers: [] }), [])
  t.same(await warned(t, { trustedPeers: () => true }), [])
})

t.test('forwarded.trust that overlaps trustedPeers', onLinux, async (t) => {
  const overlap = (trustedPeers: string[], trust: string[]) => warned(t, { trustedPeers, forwarded: { trust } })
  t.same(await overlap(['10.0.0.0/8'], ['10.1.0.0/16']), ['OVERLAP'])
  t.same(await overlap(['10.1.0.0/16'], ['192.0.2.0/24', '10.0.0.0/8']), ['OVERLAP'])
  t.same(await overlap(['loopback'], ['::1']), ['OVERLAP'])
  t.same(await overlap(['10.0.0.0/8'], ['::ffff:10.0.0.1']), ['OVERLAP'])
  t.same(await overlap(['10.0.0.0/8'], ['11.0.0.0/8', '::/0']), [])
  t.same(await warned(t, { trustedPeers: 'any', forwarded: { trust: ['0.0.0.0/0'] } }), [])
})

t.test('the first peer that is not in the list, where it is this host', onLinux, async (t) => {
  t.same(await warned(t, { trustedPeers: ['127.0.0.20'] }, visits('127.0.0.20', '127.0.0.20')), [])
  t.same(await warned(t, { trustedPeers: ['127.0.0.20'] }, visits('127.0.0.20', '127.0.0.21', '127.0.0.22')), ['SIDECAR'])
})

t.test('nothing is said of a module where getpeername alone answers, whoever was looked for', onLinux, async (t) => {
  const { ask, disagrees, readSavedSyn } = TransportPeers.prototype
  t.teardown(() => Object.assign(TransportPeers.prototype, { ask, disagrees, readSavedSyn }))
  TransportPeers.prototype.disagrees = () => true
  const behindProxies = async (options: FastifyRealIpOptions) => {
    const { logger, codes } = logOf()
    const app = Fastify({ loggerInstance: logger, trustProxy: true })
    t.teardown(() => app.close())
    await app.register(realIp, { sources: ['vtoa', 'getpeername'], ...options })
    app.get('/', (request) => request.realAddress)
    await visits('127.0.0.20')(app)
    return codes
  }
  t.same(await behindProxies({}), ['FST_REAL_IP_FORGEABLE'])
  t.same(await behindProxies({ trustedPeers: ['127.0.0.20'] }), [])
  TransportPeers.prototype.readSavedSyn = () => false
  t.same(await behindProxies({ trustedPeers: ['127.0.0.20'] }), ['FST_REAL_IP_EMPTY_SYN'])
  TransportPeers.prototype.ask = (_fd, settle) => { settle(undefined, 0) }
  t.same(await behindProxies({ trustedPeers: ['127.0.0.20'] }), ['FST_REAL_IP_EMPTY_SYN'], 'and he is not found')
})

t.test('nothing is said of SYN cookies where the listener cannot keep a SYN at all', onLinux, async (t) => {
  // 'any' puts up with it.
  const libc = loadLibc() as Libc
  const { setsockopt } = libc
  libc.setsockopt = () => 95
  t.teardown(() => { libc.setsockopt = setsockopt })
  t.same(await warned(t, { trustedPeers: 'any' }, visits('127.0.0.20')), [])
})

t.test('each is given once, with its code and what it says', async (t) => {
  const lines: Array<[fields: object, message: string]> = []
  const warnings = new Warnings({ warn: (fields: object, message?: string) => { lines.push([fields, message ?? '']) } })
  for (const code of ['SIDECAR', 'OVERLAP', 'SIDECAR'] as const) warnings.warn(code)
  t.match(lines, [
    [{ code: 'FST_REAL_IP_SIDECAR' }, /^fastify-real-ip: a connection that is not from a trusted peer /],
    [{ code: 'FST_REAL_IP_OVERLAP' }, /^fastify-real-ip: 'forwarded\.trust' overlaps /]
  ])
  t.equal(lines.length, 2)
})
