import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { setImmediate } from 'node:timers/promises'
import t from 'tap'
import { encodeProxyHeader } from 'fastify-real-ip'
import { parseAddress } from '../../lib/address/address'
import { HELD_MAX } from '../../lib/http/hold'
import { createEndpoint } from '../../lib/kernel/sockaddr'
import { holdSearches } from '../kernel/held-searches'
import { kinds } from '../kinds'
import { askHttp } from './ask'
import { gather } from './gather'
import { PEER, serve, type Served } from './matrix'
import { expectConnection, untilRead } from './wire'

// What a connection may take while its header is awaited: time, memory, and nothing of others.

t.setTimeout(240_000)

const onLinux = { skip: process.platform !== 'linux' && 'not Linux' }
const header = encodeProxyHeader({ source: { address: '203.0.113.7', port: 51234 }, destination: { address: '198.51.100.1', port: 443 } })
const request = Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')
const LONG = 60_000

const waiting = (timeout: number) => ({ options: { proxyProtocol: { timeout } } })

/** A connection that is held, with so much of its header. */
async function hold (served: Served, part: Buffer): Promise<Socket> {
  expectConnection()
  const socket = served.connect()
  socket.on('error', () => {})
  await once(socket, 'connect')
  if (part.length > 0) socket.write(part)
  await untilRead(socket, part.length)
  return socket
}

/** Also of one that was reset. */
const closeOf = (socket: Socket): Promise<void> => new Promise((resolve) => { socket.once('close', () => { resolve() }) })

const portOf = ({ app }: Served) => (app.server.address() as { port: number }).port

t.test('a client that has ended before it is accepted', onLinux, async (t) => {
  for (const { name } of kinds) {
    const served = await serve(t, name, waiting(LONG))
    // This process does not accept meanwhile.
    execFileSync(process.execPath, ['-e', `require('node:net').connect({ port: ${portOf(served)}, host: '127.0.0.1', localAddress: '${PEER}' }).end(() => process.exit())`])
    while (served.app.realIp.stats().connections === 0) await setImmediate()
    t.match(served.app.realIp.stats(), { connections: 1, rejected: 1, reason: { 'proxy-cut-short': 1 } }, name)
    t.same(served.events, [])
  }
})

t.test('the time is for the whole header, and drips do not renew it', onLinux, async (t) => {
  for (const { name } of kinds) {
    const served = await serve(t, name, waiting(100))
    const socket = await hold(served, header.subarray(0, 1))
    // A header of 4,096 bytes; each byte comes well within the time.
    const long = encodeProxyHeader({ source: { address: '203.0.113.7', port: 1 }, destination: { address: '198.51.100.1', port: 1 }, tlvs: [{ type: 4, value: Buffer.alloc(4000) }] })
    const closed = closeOf(socket)
    let sent = 1
    const drip = setInterval(() => { socket.write(long.subarray(sent, ++sent), () => {}) }, 10)
    await closed
    clearInterval(drip)
    t.ok(sent < long.length, name)
    t.same(served.events, [])
    t.match(served.app.realIp.stats(), { connections: 1, rejected: 1, reason: { 'proxy-timeout': 1 } })
  }
})

t.test('silence, and a part of a header', onLinux, async (t) => {
  const served = await serve(t, 'http', waiting(50))
  for (const part of [Buffer.alloc(0), header.subarray(0, 16), Buffer.from('PROXY TCP4 1')]) {
    const socket = await hold(served, part)
    await closeOf(socket)
  }
  t.match(served.app.realIp.stats(), { connections: 3, rejected: 3, reason: { 'proxy-timeout': 3 } })
  t.same(served.events, [])
})

t.test('a header that came while the event loop was blocked is not refused', onLinux, async (t) => {
  for (const part of [0, 10]) {
    const served = await serve(t, 'http', waiting(50))
    const socket = await hold(served, header.subarray(0, part))
    let answer = ''
    socket.on('data', (bytes: Buffer) => { answer += bytes.toString() })
    // Written at once, read by nobody until the time is over.
    socket.write(Buffer.concat([header.subarray(part), request]))
    const until = performance.now() + 120
    while (performance.now() < until);
    await closeOf(socket)
    t.match(answer, /^HTTP\/1\.1 200 [^]*"203\.0\.113\.7"/)
    t.match(served.app.realIp.stats(), { connections: 1, rejected: 0 })
  }
})

t.test('2,000 silent connections beside 200 honest ones', onLinux, async (t) => {
  const served = await serve(t, 'http', waiting(15_000))
  const silent = 2000
  const crowd = await gather(t, { count: silent, port: portOf(served), localAddress: PEER, bytes: header.subarray(0, 20).toString('hex') })
  const ended = once(crowd, 'message')
  let right = 0
  for (let i = 0; i < 200; i += 20) {
    await Promise.all(Array.from({ length: 20 }, async (_, n) => {
      const source = { address: `203.0.113.${n}`, port: 1000 + i }
      const bytes = encodeProxyHeader({ source, destination: { address: '198.51.100.1', port: 443 }, version: n % 2 === 0 ? 1 : 2 })
      const answer = await askHttp(served.connect, { header: bytes })
      if (typeof answer === 'object' && answer.address === source.address && answer.port === source.port) right++
    }))
  }
  t.equal(right, 200)
  t.match(served.app.realIp.stats(), { connections: 200 }, 'the others are still held')
  await ended
  t.match(served.app.realIp.stats(), { connections: 200 + silent, rejected: silent, reason: { 'proxy-timeout': silent } })
})

t.test('a held connection takes at most 16 KiB', onLinux, async (t) => {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as () => void
  async function held (): Promise<number> {
    for (let i = 0; i < 5; i++) {
      await setImmediate()
      gc()
    }
    const { heapUsed, external, arrayBuffers } = process.memoryUsage()
    return heapUsed + external + arrayBuffers
  }
  const served = await serve(t, 'http', waiting(LONG))
  await askHttp(served.connect, { header })
  const count = 2000
  for (const [what, bytes] of [['silent', ''], ['with half of a header of 4,000 bytes', Buffer.concat([header, Buffer.alloc(2000)]).fill(0x0f, 14, 16).toString('hex')]] as const) {
    const before = await held()
    const crowd = await gather(t, { count, port: portOf(served), localAddress: PEER, bytes })
    const each = (await held() - before) / count
    t.comment(`${what}: ${Math.round(each)} bytes each`)
    t.ok(each > 500, 'it was measured')
    t.ok(each <= 16_384, what)
    crowd.kill()
    await once(crowd, 'exit')
    while (served.app.realIp.stats().reason['proxy-cut-short'] % count !== 0 || served.app.realIp.stats().connections % count !== 1) await setImmediate()
  }
})

t.test('of too many the oldest goes, and nobody else', onLinux, async (t) => {
  const served = await serve(t, 'http', waiting(LONG))
  const oldest = await hold(served, Buffer.alloc(0))
  const closed = closeOf(oldest)
  await gather(t, { count: HELD_MAX - 1, port: portOf(served), localAddress: PEER, bytes: '' })
  t.match(served.app.realIp.stats(), { connections: 0 })
  const next = await hold(served, header.subarray(0, 8))
  await closed
  t.match(served.app.realIp.stats(), { connections: 1, rejected: 1, reason: { 'proxy-timeout': 0, 'proxy-evicted': 1 } })
  next.write(Buffer.concat([header.subarray(8), request]))
  const [answer] = await once(next, 'data')
  t.match(String(answer), /203\.0\.113\.7/)
  t.match(served.app.realIp.stats(), { connections: 2, rejected: 1 })
})

t.test('those whose sender is looked for count among them', onLinux, async (t) => {
  const searches = holdSearches(t)
  const served = await serve(t, 'http', waiting(LONG))
  const half = HELD_MAX / 2
  await gather(t, { count: half, port: portOf(served), localAddress: PEER, bytes: '' })
  await searches.waiting(half)
  searches.release(Object.assign(createEndpoint(), parseAddress(PEER)))
  await setImmediate()
  await gather(t, { count: half, port: portOf(served), localAddress: PEER, bytes: '' })
  await searches.waiting(half)
  t.match(served.app.realIp.stats(), { connections: 0 }, `${half} wait for a header, ${half} for their sender`)
  const next = served.connect().on('error', () => {})
  await searches.waiting(half + 1)
  while (served.app.realIp.stats().connections === 0) await setImmediate()
  t.match(served.app.realIp.stats(), { connections: 1, rejected: 1, reason: { 'proxy-evicted': 1 } }, 'the oldest waited for a header')
  next.destroy()
})

t.test('app.close() ends what is held, at once', { ...onLinux, timeout: 20_000 }, async (t) => {
  for (const { name } of kinds) {
    const served = await serve(t, name, waiting(LONG))
    const sockets = [await hold(served, Buffer.alloc(0)), await hold(served, header.subarray(0, 9))]
    const all = Promise.all(sockets.map(closeOf))
    await served.app.close()
    await all
    t.same(served.events, [], name)
    t.match(served.app.realIp.stats(), { connections: 2, rejected: 2 })
  }
})

t.test('a client that leaves before its header is complete ends nothing else', onLinux, async (t) => {
  for (const { name } of kinds) {
    const served = await serve(t, name, waiting(LONG))
    let connections = 0
    for (const part of [Buffer.alloc(0), header.subarray(0, 5), header.subarray(0, -1)]) {
      for (const leave of ['reset', 'end'] as const) {
        for (const when of ['held', 'before it is accepted'] as const) {
          const socket = when === 'held' ? await hold(served, part) : served.connect().on('error', () => {})
          if (when !== 'held') {
            await once(socket, 'connect')
            if (part.length > 0) socket.write(part)
          }
          const closed = closeOf(socket)
          socket.resume()
          if (leave === 'reset') socket.resetAndDestroy()
          else socket.end()
          await closed
          connections++
          while (served.app.realIp.stats().connections < connections) await setImmediate()
        }
      }
    }
    const { reason, rejected } = served.app.realIp.stats()
    t.strictSame([reason['proxy-cut-short'], rejected], [connections, connections], name)
    t.same(served.events, [])
  }
  const served = await serve(t, 'http')
  t.match(await askHttp(served.connect, { header }), { address: '203.0.113.7' })
})
