import { cpSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { loadLibc, type Libc } from '../lib/kernel/libc'
import { inLab } from './lab/in-lab'
import { kinds, listen } from './kinds'

// Two copies of the package in one process, as npm makes them where two dependencies want different versions.

const onLinux = { skip: process.platform !== 'linux' && 'not Linux' }
const [http] = kinds
const project = path.dirname(require.resolve('fastify-real-ip/package.json'))

const folder = realpathSync(mkdtempSync(path.join(tmpdir(), 'a-copy-')))
t.teardown(() => { rmSync(folder, { recursive: true }) })
for (const shipped of ['package.json', 'dist/lib']) cpSync(path.join(project, shipped), path.join(folder, shipped), { recursive: true })
symlinkSync(path.join(project, 'node_modules'), path.join(folder, 'node_modules'), 'junction')
const copy: typeof realIp = require(folder)
const imported = import(pathToFileURL(path.join(folder, 'dist/lib/index.js')).href)

/** Counts the saved SYNs that either copy reads. */
function countReads (t: Test): () => [ours: number, theirs: number] {
  const libcs = [loadLibc() as Libc, require(path.join(folder, 'dist/lib/kernel/libc.js')).loadLibc() as Libc]
  const reads: [number, number] = [0, 0]
  libcs.forEach((libc, i) => {
    const { readSavedSyn } = libc
    libc.readSavedSyn = (fd) => {
      reads[i as 0 | 1]++
      return readSavedSyn(fd)
    }
    t.teardown(() => { libc.readSavedSyn = readSavedSyn })
  })
  return () => reads
}

const options: FastifyRealIpOptions = { trustedPeers: ['127.0.0.5'], forwarded: { trust: ['127.0.0.6'] } }

t.test('they are two', async (t) => {
  t.not(copy, realIp)
  t.equal((await imported).default, copy)
  t.ok(Symbol.for('fastify-real-ip.registrations') in globalThis, 'what they share has a name that stays')
})

const ways: Array<[string, (app: FastifyInstance) => Promise<void>]> = [
  ['one after the other', async (app) => {
    await app.register(realIp, options)
    await app.register(copy, { ...options })
    app.get('/', (request) => request.realAddress)
  }],
  ['the copy first, by import()', async (app) => {
    await app.register(imported, options)
    await app.register(import('fastify-real-ip'), { ...options, missing: 'ignore' })
    app.get('/', (request) => request.realAddress)
  }],
  ['in scopes beside each other', async (app) => {
    await app.register(async (child) => {
      await child.register(copy, options)
      child.get('/other', (request) => request.realAddress)
    })
    await app.register(async (child) => {
      await child.register(realIp, options)
      child.get('/', (request) => request.realAddress)
    })
  }]
]

t.test('with the same options they share one registration, which reads each saved SYN once', onLinux, async (t) => {
  for (const [way, register] of ways) {
    const reads = countReads(t)
    const app = Fastify()
    await register(app)
    t.teardown(() => app.close())
    const client = await http!.connect(await listen(app), { localAddress: '127.0.0.5' })
    const expected = { address: '127.0.0.5', port: client.localPort, trust: 'trusted', reason: 'no-toa', transportPeer: { address: '127.0.0.5' } }
    t.match(await client.get('/'), expected, way)
    if (way.startsWith('in scopes')) t.match(await client.get('/other'), expected)
    t.equal(reads()[0] + reads()[1], 1, `${way}: ${reads()}`)
    await client.close()
    await app.close()
  }
})

inLab('beside a module that rewrites getpeername both say the same', async (t, lab) => {
  lab.module.start({ getsockopt: false })
  const claim = { address: '203.0.113.7', port: 51234 }
  const balancer = await lab.client(claim)
  for (const [way, register] of ways) {
    lab.enterServer()
    const app = Fastify()
    await register(app)
    t.teardown(() => app.close())
    const port = await listen(app)
    balancer.enter()
    for (const localAddress of ['127.0.0.5', '127.0.0.66']) {
      const client = await http!.connect(port, { localAddress })
      const transportPeer = { address: localAddress, port: client.localPort }
      const expected = localAddress === '127.0.0.5'
        ? { ...claim, source: 'getpeername', trust: 'trusted', transportPeer }
        : { ...transportPeer, source: 'transport-peer', trust: 'untrusted', reason: 'untrusted-peer', transportPeer }
      t.match(await client.get('/'), expected, `${way}: ${localAddress}`)
      if (way.startsWith('in scopes')) t.match(await client.get('/other'), expected)
      await client.close()
    }
    await app.close()
  }
})

t.test('one swaps the list for both', onLinux, async (t) => {
  const app = Fastify()
  const scopes: FastifyInstance[] = []
  for (const plugin of [realIp, copy]) {
    await app.register(async (child) => {
      await child.register(plugin, options)
      child.get(`/${scopes.length}`, (request) => [request.realAddress.trust])
      scopes.push(child)
    })
  }
  t.teardown(() => app.close())
  const client = await http!.connect(await listen(app), { localAddress: '127.0.0.5' })
  for (const scope of scopes) {
    scope.realIp.setTrustedPeers([])
    t.same([await client.get('/0'), await client.get('/1')], [['untrusted'], ['untrusted']])
    scope.realIp.setTrustedPeers(['127.0.0.5'])
    t.same([await client.get('/0'), await client.get('/1')], [['trusted'], ['trusted']])
  }
  await client.close()
})

t.test('one policy per server: with other options it is an error, whichever copy comes second', async (t) => {
  const others: FastifyRealIpOptions[] = [
    {}, { trustedPeers: ['127.0.0.5'] }, { ...options, trustedPeers: ['127.0.0.5/32'] }, { ...options, trustedPeers: 'any' }, { ...options, trustedPeers: [] },
    { ...options, missing: 'reject' }, { ...options, unverified: 'believe' }, { ...options, forwarded: { trust: ['127.0.0.6'], header: 'forwarded' } },
    { ...options, admit: () => true }, { ...options, sources: ['getpeername'] }
  ]
  for (const [first, second] of [[realIp, realIp], [realIp, copy], [copy, realIp]] as const) {
    for (const other of others) {
      const app = Fastify()
      await app.register(first, options)
      await t.rejects(async () => app.register(second, other), { code: 'FST_REAL_IP_ALREADY_REGISTERED' }, JSON.stringify(other))
      await app.close()
    }
  }
  const predicate = () => true
  const app = Fastify()
  await app.register(realIp, { trustedPeers: predicate, admit: predicate })
  await app.register(copy, { trustedPeers: predicate, admit: predicate })
  await t.rejects(async () => app.register(copy, { trustedPeers: () => true, admit: predicate }), { code: 'FST_REAL_IP_ALREADY_REGISTERED' })
  await app.close()
})

t.test('an application with the other copy can take over a running server', onLinux, async (t) => {
  for (const [first, second] of [[realIp, copy], [copy, realIp]] as const) {
    const one = Fastify()
    await one.register(first, { trustedPeers: ['127.0.0.5'] })
    one.get('/', (request) => request.realAddress)
    const port = await listen(one)
    const { server } = one
    const { listen: begin, close } = server
    let handler: (() => void) | undefined
    const two = Fastify({
      serverFactory (next) {
        handler = next as () => void
        return server
      }
    })
    await two.register(second, { trustedPeers: ['127.0.0.6'], unverified: 'reject' })
    two.get('/', (request) => request.realAddress)
    // As @fastify/restartable does it.
    server.listen = (() => server.emit('listening')) as never
    await two.listen({ port, host: '127.0.0.1' })
    server.removeAllListeners('request').on('request', handler as () => void)
    for (const [localAddress, trust] of [['127.0.0.5', 'untrusted'], ['127.0.0.6', 'trusted']] as const) {
      const client = await http!.connect(port, { localAddress })
      t.match(await client.get('/'), { address: localAddress, trust })
      await client.close()
    }
    t.match(two.realIp.stats(), { connections: 2, rejected: 0 })
    server.listen = begin
    server.close = ((done: () => void) => { done() }) as never
    await one.close()
    server.close = close
    const client = await http!.connect(port, { localAddress: '127.0.0.6' })
    t.match(await client.get('/'), { address: '127.0.0.6', trust: 'trusted' })
    await client.close()
    await two.close()
  }
})
