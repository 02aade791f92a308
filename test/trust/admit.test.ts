import net from 'node:net'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import realIp, { type FastifyRealIpOptions, type RealAddress, type TrustedPeers } from 'fastify-real-ip'
import { kinds, listen, oneLoopback } from '../kinds'
import { logOf } from './log'

const linux = process.platform === 'linux'
const source = linux ? 'getpeername' : 'peer'
const [http, https] = kinds

t.test('asked once per connection, before anything is parsed; only exact true admits', { skip: oneLoopback }, async (t) => {
  for (const kind of kinds) {
    for (const policy of linux ? [{}, { trustedPeers: ['127.0.0.0/8'] }] : [{}] as FastifyRealIpOptions[]) {
      const asked: RealAddress[] = []
      let seen = 0
      const app = kind.create()
      for (const event of ['request', 'stream', 'secureConnection', 'clientError']) app.server.on(event, () => { seen++ })
      await app.register(realIp, {
        ...policy,
        admit (address) {
          asked.push(address)
          return address.address !== '127.0.0.51'
        }
      })
      app.get('/', (request) => request.realAddress)
      t.teardown(() => app.close())
      const port = await listen(app)

      const refused = net.connect({ port, host: '127.0.0.1', localAddress: '127.0.0.51' })
      let bytes = 0
      let code: string | undefined
      refused.on('data', (chunk) => { bytes += chunk.length }).on('error', (error: NodeJS.ErrnoException) => { code = error.code })
      refused.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
      await new Promise((resolve) => refused.once('close', resolve))
      t.same([bytes, code, seen], [0, 'ECONNRESET', 0], `${kind.name}: a reset`)

      const client = await kind.connect(port, { localAddress: '127.0.0.52' })
      for (let n = 0; n < 3; n++) t.match(await client.get('/'), { address: '127.0.0.52' })
      const policed = 'trustedPeers' in policy
      const common = { family: 'IPv4', source: policed ? 'transport-peer' : source, trust: policed ? 'trusted' : 'unchecked' }
      t.match(asked, [{ ...common, address: '127.0.0.51' }, { ...common, address: '127.0.0.52', port: client.localPort }])
      t.equal(asked.length, 2)
      t.ok(asked.every(Object.isFrozen))
      await client.close()
    }
  }
})

t.test('asked again on a kept connection where a swapped list gives another answer', { skip: !linux && 'not Linux' }, async (t) => {
  const asked: string[] = []
  const app = Fastify()
  await app.register(realIp, {
    trustedPeers: ['127.0.0.0/8'],
    admit ({ trust }) {
      asked.push(trust)
      return trust === 'trusted'
    }
  })
  app.get('/', (request) => [request.realAddress.trust])
  t.teardown(() => app.close())
  const client = await http!.connect(await listen(app))
  client.socket.on('error', () => {})
  for (const trustedPeers of [['127.0.0.0/8'], 'any', ['127.0.0.0/16']] as TrustedPeers[]) {
    app.realIp.setTrustedPeers(trustedPeers)
    t.same(await client.get('/'), ['trusted'])
  }
  t.same(asked, ['trusted'], 'the answer was the same')
  app.realIp.setTrustedPeers([])
  await t.rejects(client.get('/'), 'admitted no longer')
  t.same(asked, ['trusted', 'untrusted'])
})

async function outcome (t: Test, admit: () => any): Promise<[admitted: boolean, errors: string[]]> {
  const { logger, errors } = logOf()
  const app = Fastify({ loggerInstance: logger })
  await app.register(realIp, { admit })
  app.get('/', (request) => request.realAddress)
  t.teardown(() => app.close())
  const port = await listen(app)
  const outcomes = await Promise.all(Array.from({ length: 3 }, async () => {
    try {
      const client = await http!.connect(port)
      client.socket.on('error', () => {})
      await client.get('/')
      await client.close()
      return true
    } catch {
      return false
    }
  }))
  t.equal(new Set(outcomes).size, 1)
  return [outcomes[0]!, errors]
}

t.test('whatever else it returns refuses, and is logged at most once a second', async (t) => {
  const rejections: unknown[] = []
  const onRejection = (reason: unknown) => { rejections.push(reason) }
  process.on('unhandledRejection', onRejection)
  t.teardown(() => { process.off('unhandledRejection', onRejection) })
  t.same(await outcome(t, () => true), [true, []])
  for (const value of [false, undefined, null, 0, 1, 'true', {}, [], () => true]) {
    t.same(await outcome(t, () => value), [false, []], String(value))
  }
  const failing = async () => { throw new Error('no') }
  for (const [name, admit, message] of [
    ['a throw', () => { throw new Error('no') }, /'admit' threw, which counts as false/],
    ['a promise', async () => true, /'admit' returned a promise, which counts as false/],
    ['a rejected promise', failing, /'admit' returned a promise/],
    ['a thenable', () => ({ then () {} }), /'admit' returned a promise/]
  ] as Array<[string, () => any, RegExp]>) {
    const [admitted, errors] = await outcome(t, admit)
    t.notOk(admitted, name)
    t.equal(errors.length, 1, `${name}: one line for three connections`)
    t.match(errors[0], message)
  }
  await new Promise((resolve) => setImmediate(resolve))
  t.same(rejections, [])
})

t.test('a block list of node:net, with the family', { skip: oneLoopback }, async (t) => {
  const blockList = new net.BlockList()
  blockList.addSubnet('127.0.0.48', 28, 'ipv4')
  blockList.addAddress('::1', 'ipv6')
  const app = Fastify()
  await app.register(realIp, {
    admit: ({ address, family }) => address !== undefined && !blockList.check(address, family === 'IPv6' ? 'ipv6' : 'ipv4')
  })
  app.get('/', (request) => [request.realIp])
  t.teardown(() => app.close())
  const port = await listen(app)
  const blocked = net.connect({ port, host: '127.0.0.1', localAddress: '127.0.0.53' }).on('error', () => {})
  await new Promise((resolve) => blocked.once('close', resolve))
  const client = await http!.connect(port, { localAddress: '127.0.0.64' })
  t.same(await client.get('/'), ['127.0.0.64'])
  await client.close()
})

t.test('a connection that is gone when it is handed over is asked about, and harms nobody', async (t) => {
  let asked = 0
  const app = https!.create()
  await app.register(realIp, { admit: () => ++asked < 0 })
  await app.ready()
  t.teardown(() => app.close())
  const socket = new net.Socket()
  socket.destroy()
  app.server.emit('connection', socket)
  const unconnected = new net.Socket()
  unconnected.on('error', () => {})
  const closed = new Promise((resolve) => unconnected.once('close', resolve))
  app.server.emit('connection', unconnected)
  await closed
  t.equal(asked, 2)
})
