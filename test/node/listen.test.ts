import { execFile, fork } from 'node:child_process'
import cluster, { type Worker } from 'node:cluster'
import { EventEmitter, once } from 'node:events'
import { cpSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from 'node:fs'
import http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import { constants, tmpdir } from 'node:os'
import path from 'node:path'
import { promisify } from 'node:util'
import type * as Koffi from 'koffi' with { 'resolution-mode': 'import' }
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import realIp from 'fastify-real-ip'
import { loadLibc, type Libc } from '../../lib/kernel/libc'
import { inLab } from '../lab/in-lab'
import { freePort } from '../free-port'
import { bothLocalhosts, kinds, listen, noIPv6 } from '../kinds'
import type { Order, Outcome } from './worker'

const linux = process.platform === 'linux'
const onLinux = { skip: !linux && 'not Linux' }
const [plain] = kinds
const worker = path.join(__dirname, 'worker.js')
const loopback = { host: '127.0.0.1' }
const policy = { trustedPeers: ['127.0.0.0/8'] }

/** Whether nobody listens there. */
async function isFree (port: number): Promise<boolean> {
  const server = net.createServer()
  const free = await new Promise<boolean>((resolve) => {
    server.once('error', () => resolve(false)).listen({ port, host: '127.0.0.1', exclusive: true }, () => resolve(true))
  })
  if (free) await new Promise((resolve) => server.close(resolve))
  return free
}

async function workers (t: Test, count: number, order: Order): Promise<[Worker, Outcome][]> {
  cluster.setupPrimary({ exec: worker, args: [] })
  const all = Array.from({ length: count }, () => cluster.fork({ FASTIFY_REAL_IP_ORDER: JSON.stringify(order) }))
  t.teardown(() => Promise.all(all.map(async (each) => {
    if (each.isDead()) return
    each.send('end')
    await once(each, 'exit')
  })))
  return await Promise.all(all.map(async (each) => [each, (await once(each, 'message'))[0] as Outcome] as [Worker, Outcome]))
}

async function seenBy (port: number, localAddress = '127.0.0.10'): Promise<[seen: any, localPort: number]> {
  const client = await plain!.connect(port, { localAddress })
  const seen = await client.get('/')
  await client.close()
  return [seen, client.localPort]
}

t.test('cluster workers whose primary accepts: each connection is looked up by sock_diag', onLinux, async (t) => {
  for (const [plugin, trust] of [[policy, 'trusted'], [{ trustedPeers: [] }, 'untrusted']] as const) {
    await t.test(trust, async (t) => {
      const all = await workers(t, 2, { plugin, listen: { ...loopback, port: 0 } })
      for (let n = 0; n < 6; n++) {
        const localAddress = `127.0.0.${20 + n}`
        const [seen, localPort] = await seenBy(all[0]![1].port!, localAddress)
        t.match(seen, { address: localAddress, trust, transportPeer: { address: localAddress, port: localPort } })
      }
    })
  }
})

t.test("a cluster worker that does without: 'any', or no policy", onLinux, async (t) => {
  for (const [plugin, expected] of [[{ trustedPeers: 'any' }, { trust: 'trusted' }], [{}, { trust: 'unchecked' }]] as const) {
    // One after the other: workers share what they listen on.
    await t.test(expected.trust, async (t) => {
      const [[, { port }]] = await workers(t, 1, { plugin, listen: { ...loopback, port: 0 } }) as [[Worker, Outcome]]
      const [seen, localPort] = await seenBy(port!)
      t.match(seen, { address: '127.0.0.10', port: localPort, ...expected })
      if ('trustedPeers' in plugin) t.same(seen.transportPeer, { address: '127.0.0.10', port: localPort }, 'by sock_diag')
    })
  }
})

t.test('a cluster worker with exclusive: true has its own listening socket', onLinux, async (t) => {
  const [[, { port }]] = await workers(t, 1, { plugin: policy, listen: { ...loopback, port: 0, exclusive: true } }) as [[Worker, Outcome]]
  const [seen, localPort] = await seenBy(port!)
  t.match(seen, { trust: 'trusted', transportPeer: { address: '127.0.0.10', port: localPort } })
})

const [major, minor] = process.versions.node.split('.').map(Number) as [number, number]
const hasReusePort = major > 22 || (major === 22 && minor >= 12)

t.test('cluster workers with reusePort: true each have one', { skip: onLinux.skip || (!hasReusePort && 'Node.js 22.12') }, async (t) => {
  const port = await freePort()
  const all = await workers(t, 2, { plugin: policy, listen: { ...loopback, port, reusePort: true } })
  for (const [, outcome] of all) t.match(outcome, { port, listening: true })
  for (let n = 0; n < 20; n++) {
    const [seen, localPort] = await seenBy(port)
    t.match(seen, { trust: 'trusted', transportPeer: { address: '127.0.0.10', port: localPort } })
  }
})

t.test('a listening MPTCP socket', onLinux, async (t) => {
  const koffi = require('koffi') as typeof Koffi
  const libc = koffi.load(null)
  const IPPROTO_MPTCP = 262
  const fd: number = libc.func('int socket(int, int, int)')(2, 1, IPPROTO_MPTCP)
  if (fd < 0) {
    await t.test('listen() fails', { skip: 'the kernel has no MPTCP' }, () => {})
    return
  }
  t.equal(libc.func('int listen(int, int)')(fd, 8), 0)
  // In a process of its own, for the descriptor is closed with the server.
  const child = fork(worker, [], {
    env: { ...process.env, FASTIFY_REAL_IP_ORDER: JSON.stringify({ plugin: policy, listen: { fd: 4 } }) },
    stdio: ['ignore', 'inherit', 'inherit', 'ipc', fd]
  })
  const [outcome] = await once(child, 'message')
  libc.func('int close(int)')(fd)
  t.match(outcome, { code: 'FST_REAL_IP_NO_TRANSPORT_PEER', message: /TCP_SAVE_SYN \(\w+\).*MPTCP/, listening: false })
  child.send('end')
  await once(child, 'exit')
})

t.test('a kernel that refuses TCP_SAVE_SYN: both forms of listen() fail, and nothing stays bound', onLinux, async (t) => {
  const libc = loadLibc() as Libc
  const { setsockopt } = libc
  t.teardown(() => { libc.setsockopt = setsockopt })
  for (const kind of kinds) {
    for (const callback of [false, true]) {
      libc.setsockopt = () => constants.errno.ENOPROTOOPT
      const app = kind.create()
      await app.register(realIp, policy)
      app.get('/', (request) => request.realAddress)
      t.teardown(() => app.close())
      const port = await freePort()
      const listening = callback
        ? new Promise<void>((resolve, reject) => app.listen({ ...loopback, port }, (error) => error === null ? resolve() : reject(error)))
        : app.listen({ ...loopback, port })
      await t.rejects(listening as Promise<unknown>, { code: 'FST_REAL_IP_NO_TRANSPORT_PEER', message: /ENOPROTOOPT/ }, kind.name)
      t.notOk(app.server.listening)
      t.ok(await isFree(port), 'nothing stays bound')
      libc.setsockopt = setsockopt
      await app.close()
    }
  }
})

t.test('a server that listens already when the plugin comes to it', onLinux, async (t) => {
  const libc = loadLibc() as Libc
  const { setsockopt } = libc
  t.teardown(() => { libc.setsockopt = setsockopt })
  for (const refused of [false, true]) {
    let server!: http.Server
    const app = Fastify({
      serverFactory (handler) {
        server = http.createServer((request, response) => handler(request, response)).listen(0, '127.0.0.1')
        return server
      }
    })
    await once(server, 'listening')
    if (refused) {
      libc.setsockopt = () => constants.errno.ENOPROTOOPT
      await t.rejects(async () => app.register(realIp, policy), { code: 'FST_REAL_IP_NO_TRANSPORT_PEER' })
      server.close()
    } else {
      await app.register(realIp, policy)
      app.get('/', (request) => request.realAddress)
      await app.ready()
      const [seen, localPort] = await seenBy((server.address() as AddressInfo).port)
      t.match(seen, { trust: 'trusted', transportPeer: { address: '127.0.0.10', port: localPort } })
      server.close()
    }
  }
})

/** A server that only stands for another one, as those of other run times do. */
class Foreign extends EventEmitter {
  readonly #inner = net.createServer()
  get listening (): boolean { return this.#inner.listening }
  address () { return this.#inner.address() }
  setTimeout (): this { return this }
  listen (...args: unknown[]): this {
    this.#inner.on('connection', (socket) => this.emit('connection', socket))
    this.#inner.on('error', (error) => this.emit('error', error))
    this.#inner.listen(...args as [net.ListenOptions]).once('listening', () => this.emit('listening'))
    return this
  }

  close (done?: (error?: Error) => void): this {
    this.#inner.close(done)
    return this
  }
}

const foreign: Record<string, (handler: http.RequestListener) => http.Server> = {
  'an EventEmitter': (handler) => new Foreign().on('request', handler) as unknown as http.Server,
  'a Proxy': (handler) => {
    return new Proxy(http.createServer(handler), {
      get (target, name) {
        const value: unknown = Reflect.get(target, name, target)
        return typeof value === 'function' ? value.bind(target) : value
      }
    })
  }
}

for (const [name, serverFactory] of Object.entries(foreign)) {
  t.test(`a server of a foreign serverFactory, ${name}: listen() fails where a list needs it armed`, onLinux, async (t) => {
    for (const callback of [false, true]) {
      for (const options of [policy, { trustedPeers: [], unverified: 'reject' } as const]) {
        const app = Fastify({ serverFactory })
        await app.register(realIp, options)
        t.teardown(() => app.close())
        const port = await freePort()
        const listening = callback
          ? new Promise<void>((resolve, reject) => app.listen({ ...loopback, port }, (error) => error === null ? resolve() : reject(error)))
          : app.listen({ ...loopback, port })
        await t.rejects(listening as Promise<unknown>, { code: 'FST_REAL_IP_NO_TRANSPORT_PEER', message: /began to listen before the plugin could prepare it/ })
        t.notOk(app.server.listening)
        t.ok(await isFree(port), 'nothing stays bound')
      }
    }
  })

  t.test(`a server of a foreign serverFactory, ${name}: no policy and 'any' do without`, onLinux, async (t) => {
    for (const [options, expected] of [[{}, { trust: 'unchecked' }], [{ trustedPeers: 'any' }, { trust: 'trusted' }]] as const) {
      const app = Fastify({ serverFactory })
      await app.register(realIp, options)
      t.teardown(() => app.close())
      const port = await listen(app)
      const accepted = once(app.server, 'connection')
      const client = net.connect({ port, host: '127.0.0.1', localAddress: '127.0.0.10' })
      const [socket] = await accepted as [net.Socket]
      t.match(app.realIp.lookup(socket), { address: '127.0.0.10', port: client.localPort, ...expected })
      client.destroy()
      socket.destroy()
    }
  })
}

t.test("both servers of listen({ host: 'localhost' }) keep their SYNs", { skip: onLinux.skip || noIPv6 }, async (t) => {
  bothLocalhosts(t)
  const libc = loadLibc() as Libc
  const { openDiag } = libc
  // Without sock_diag there are the saved SYNs alone.
  libc.openDiag = () => constants.errno.EPERM
  t.teardown(() => { libc.openDiag = openDiag })
  for (const kind of kinds) {
    const app = kind.create()
    await app.register(realIp, { trustedPeers: ['loopback'], unverified: 'reject' })
    app.get('/', (request) => request.realAddress)
    t.teardown(() => app.close())
    const port = await listen(app, { host: 'localhost' })
    for (const host of ['127.0.0.1', '::1']) {
      const client = await kind.connect(port, { host })
      t.match(await client.get('/'), { address: host, trust: 'trusted', transportPeer: { address: host, port: client.localPort } }, `${kind.name}, ${host}`)
      await client.close()
    }
    await app.close()
  }
})

inLab("both servers of listen({ host: 'localhost' }) beside a module that rewrites getpeername", async (t, lab) => {
  bothLocalhosts(t)
  lab.module.start({ getsockopt: false })
  const claims = { '127.0.0.1': { address: '203.0.113.7', port: 51234 }, '::1': { address: '2001:db8::7', port: 51234 } } as const
  const hosts = ['127.0.0.1', '::1'] as const
  const balancer = await lab.client()
  for (const kind of kinds) {
    await t.test(kind.name, { skip: noIPv6 }, async (t) => {
      lab.enterServer()
      const app = kind.create()
      await app.register(realIp, { trustedPeers: [] })
      app.get('/', (request) => request.realAddress)
      t.teardown(() => app.close())
      const port = await listen(app, { host: 'localhost' })
      balancer.enter()
      for (const trusted of hosts) {
        app.realIp.setTrustedPeers([trusted])
        for (const host of hosts) {
          balancer.set(claims[host])
          const client = await kind.connect(port, { host })
          const transportPeer = { address: host, port: client.localPort }
          const expected = host === trusted
            ? { ...claims[host], source: 'getpeername', trust: 'trusted', transportPeer }
            : { ...transportPeer, source: 'transport-peer', trust: 'untrusted', reason: 'untrusted-peer', transportPeer }
          t.match(await client.get('/'), expected, `${host}, ${trusted} is trusted`)
          await client.close()
        }
      }
    })
  }
})

t.test('without koffi', async (t) => {
  // Not inside the project, where koffi would be found further up.
  const folder = realpathSync(mkdtempSync(path.join(tmpdir(), 'without-koffi-')))
  t.teardown(() => { rmSync(folder, { recursive: true }) })
  const project = path.dirname(require.resolve('fastify-real-ip/package.json'))
  const modules = path.join(folder, 'node_modules')
  const { dependencies, name } = require('fastify-real-ip/package.json')
  for (const dependency of [...Object.keys(dependencies), 'fastify']) {
    if (dependency === 'koffi') continue
    mkdirSync(path.dirname(path.join(modules, dependency)), { recursive: true })
    symlinkSync(path.join(project, 'node_modules', dependency), path.join(modules, dependency), 'junction')
  }
  for (const shipped of ['package.json', 'dist/lib']) cpSync(path.join(project, shipped), path.join(modules, name, shipped), { recursive: true })
  const script = path.join(folder, 'worker.js')
  cpSync(worker, script)

  const run = async (order: Order): Promise<Outcome> => {
    const program = `
      process.send = (outcome) => { console.log(JSON.stringify(outcome)); process.exit() }
      process.env.FASTIFY_REAL_IP_ORDER = ${JSON.stringify(JSON.stringify(order))}
      require(${JSON.stringify(script)})`
    const { stdout } = await promisify(execFile)(process.execPath, ['-e', program], { cwd: folder })
    return JSON.parse(stdout)
  }
  const says = linux ? /koffi cannot be loaded/ : /TOA can be read on Linux only/
  for (const callback of [false, true]) {
    t.match(await run({ plugin: policy, listen: { ...loopback, port: 0 }, callback }), {
      code: 'FST_REAL_IP_NO_TRANSPORT_PEER', message: says, listening: false
    })
  }
  t.match(await run({ plugin: { trustedPeers: 'any' }, listen: { ...loopback, port: 0 } }), { port: Number, listening: true })
  t.match(await run({ plugin: { admit: undefined as never }, listen: { ...loopback, port: 0 } }), { port: Number, listening: true })
})
