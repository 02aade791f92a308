import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import type { Test } from 'tap'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { TCP_ESTABLISHED, TCP_INFO, TCP_SYN_RECV, TCPI_OPT_SYN_DATA } from '../../lib/kernel/constants'
import { loadLibc, type Libc } from '../../lib/kernel/libc'
import { fdOf } from '../../lib/node/sockets'
import { kinds, listen } from '../kinds'
import { balancerAddresses, hasIPv6, serverAddresses } from '../player/namespace'
import type { Player } from '../player/player'
import { testInNamespace } from '../player/test-in-namespace'
import { linuxSynOptions, toa } from '../player/tcp-options'
import { logOf } from '../trust/log'
import { inLab } from './in-lab'
import { countDiags, open, sysctl } from './trust-lab'
import { type Protocol, visit } from './trust-visit'

const balancer = balancerAddresses.IPv4
const protocols: Protocol[] = ['http', 'https', 'h2']

// <net/tcp.h>
const TFO_SERVER_ENABLE = 0x2
const TFO_SERVER_COOKIE_NOT_REQD = 0x200
const TFO_SERVER_WO_SOCKOPT1 = 0x400

/** A counter of this namespace's TCP, as nstat(8) names it. */
function counter (name: string): number {
  const [names = '', values = ''] = readFileSync('/proc/net/netstat', 'utf8').split('\n').filter((line) => line.startsWith('TcpExt:'))
  return Number(values.split(' ')[names.split(' ').indexOf(name)])
}

async function serve (t: Test, protocol: Protocol, options: FastifyRealIpOptions, fastify: object = {}): Promise<number> {
  const app = kinds.find(({ name }) => name === protocol)!.create({ forceCloseConnections: true, ...fastify })
  await app.register(realIp, options)
  app.get('/', (request) => request.realAddress)
  t.teardown(() => app.close())
  return await listen(app, { host: hasIPv6() ? '::' : '0.0.0.0' })
}

/** SYNs from anywhere, the balancer included, that nobody will go on with. */
function flood (player: Player, port: number, count: number): void {
  for (let n = 0; n < count; n++) {
    const [a, b, c, ...rest] = randomBytes(5) as unknown as number[]
    const source = n % 10 === 0 ? balancer : `198.18.${a}.${b}`
    player.syn({
      source,
      sourcePort: 1024 + (rest[0]! << 8 | rest[1]!) % 30_000,
      destination: serverAddresses.IPv4,
      port,
      client: [toa(254, `192.0.2.${c}`, 1), ...linuxSynOptions(1)]
    })
  }
}

let clients = 0
function nextClient (family: Family = 'IPv4'): { address: string, port: number } {
  clients++
  return { address: family === 'IPv4' ? `203.0.${clients >> 8}.${clients & 255}` : `2001:db8::${clients.toString(16)}`, port: 1024 + clients }
}

type Family = 'IPv4' | 'IPv6'
// What a forger would like to be: another client, the balancer, this host, nobody.
const wishes = {
  IPv4: ['203.0.113.7', balancer, '10.1.2.3', '127.0.0.1', '0.0.0.0', serverAddresses.IPv4],
  IPv6: ['2001:db8::7', balancerAddresses.IPv6, 'fd12::1', '::1', '::', serverAddresses.IPv6]
}

/** Clients behind the balancer and forgers beside it, all at once. */
async function visitors (t: Test, player: Player, port: number, protocol: Protocol, each: number, family: Family = 'IPv4'): Promise<void> {
  const legitimate = Array.from({ length: each }, async () => {
    const claim = nextClient(family)
    const source = balancerAddresses[family]
    const visitor = await visit(player, { protocol, port, source, claim })
    t.match(await visitor.get(), {
      ...claim, source: 'vtoa', trust: 'trusted', reason: undefined, transportPeer: { address: source, port: visitor.sourcePort }
    }, `${protocol}: a client behind the balancer`)
    visitor.close()
  })
  const forgers = Array.from({ length: each }, async (_, n) => {
    const source = family === 'IPv4' ? `198.51.100.${1 + n}` : `2001:db8:66::${1 + n}`
    const claim = { address: wishes[family][n % wishes[family].length]!, port: 666 }
    const visitor = await visit(player, { protocol, port, source, claim })
    const P = { address: source, port: visitor.sourcePort }
    t.match(await visitor.get(), { ...P, source: 'transport-peer', trust: 'untrusted', reason: 'untrusted-peer', transportPeer: P },
      `${protocol}: a forger who would be ${claim.address}`)
    visitor.close()
  })
  await Promise.all([...legitimate, ...forgers])
}

testInNamespace(__filename, () => {
  inLab('a spoofed SYN flood at stock sysctls', async (t, lab) => {
    t.equal(readFileSync('/proc/sys/net/ipv4/tcp_syncookies', 'utf8').trim(), '1')
    lab.module.start()
    for (const protocol of protocols) {
      const { logger, codes } = logOf()
      const port = await serve(t, protocol, { trustedPeers: [balancer] }, { loggerInstance: logger })
      const player = open(t)
      const before = counter('SyncookiesRecv')
      flood(player, port, 1000)
      for (let round = 0; round < 8; round++) {
        await visitors(t, player, port, protocol, 6)
        flood(player, port, 100)
      }
      t.ok(counter('SyncookiesRecv') - before > 48, `${protocol}: ${counter('SyncookiesRecv') - before} of 96 connections by SYN cookies`)
      t.ok(codes.includes('FST_REAL_IP_EMPTY_SYN'), 'which is warned of')
      player.close()
    }
  })

  inLab('SYN cookies for all', async (t, lab) => {
    sysctl(t, 'tcp_syncookies', 2)
    lab.module.start()
    for (const protocol of protocols) {
      const port = await serve(t, protocol, { trustedPeers: Object.values(balancerAddresses) })
      const player = open(t)
      for (const family of hasIPv6() ? ['IPv4', 'IPv6'] as const : ['IPv4'] as const) {
        for (let round = 0; round < 2; round++) await visitors(t, player, port, protocol, 12, family)
      }
      player.close()
    }
  })

  inLab('Fast Open with a spoofed source and a request in the SYN', async (t, lab) => {
    sysctl(t, 'tcp_fastopen', TFO_SERVER_ENABLE | TFO_SERVER_COOKIE_NOT_REQD | TFO_SERVER_WO_SOCKOPT1)
    lab.module.start()
    const player = open(t)
    const claim = nextClient()
    const spoofed = (port: number) => player.syn({
      source: balancer,
      destination: serverAddresses.IPv4,
      port,
      client: [toa(254, '203.0.113.7', 1), ...linuxSynOptions(1)],
      syn: { payload: Buffer.from('GET /early HTTP/1.1\r\nHost: x\r\n\r\n') }
    })

    const bare = http.createServer().listen(0)
    t.teardown(() => {
      bare.closeAllConnections()
      bare.close()
    })
    await once(bare, 'listening')
    const early = once(bare, 'request')
    spoofed((bare.address() as AddressInfo).port)
    t.equal((await early)[0].url, '/early', 'the kernel would take it')

    for (const protocol of ['http', 'h2'] as const) {
      const app = kinds.find(({ name }) => name === protocol)!.create({ forceCloseConnections: true })
      await app.register(realIp, { trustedPeers: [balancer] })
      app.get('/', (request) => request.realAddress)
      t.teardown(() => app.close())
      const port = await listen(app, { host: hasIPv6() ? '::' : '0.0.0.0' })
      let accepted = 0
      app.server.on('connection', () => { accepted++ })
      for (let n = 0; n < 20; n++) spoofed(port)
      const visitor = await visit(player, { protocol, port, source: balancer, claim })
      t.match(await visitor.get(), { ...claim, trust: 'trusted', transportPeer: { address: balancer } })
      t.equal(accepted, 1, `${protocol}: nothing came in before the handshake was done`)
    }
  })

  inLab('Fast Open where no listening socket could be armed: a front server that emits the connection', async (t, lab) => {
    sysctl(t, 'tcp_fastopen', TFO_SERVER_ENABLE | TFO_SERVER_COOKIE_NOT_REQD | TFO_SERVER_WO_SOCKOPT1)
    lab.module.start()
    const player = open(t)
    const libc = loadLibc() as Libc
    const state = (socket: net.Socket): number => libc.getsockopt(fdOf(socket), 6, TCP_INFO) === 0 ? libc.bytes[0]! : 0
    const hasSynData = (socket: net.Socket): boolean => libc.getsockopt(fdOf(socket), 6, TCP_INFO) === 0 && (libc.bytes[5]! & TCPI_OPT_SYN_DATA) !== 0

    const app = kinds[0]!.create({ forceCloseConnections: true })
    await app.register(realIp, { trustedPeers: [balancer] })
    app.get('/', (request) => request.realAddress)
    app.get('/early', (request) => request.realAddress)
    await app.ready()
    const accepted: net.Socket[] = []
    const front = net.createServer((socket) => {
      accepted.push(socket)
      socket.on('error', () => {})
    }).listen(0, '0.0.0.0')
    t.teardown(async () => {
      front.close()
      for (const socket of accepted) socket.destroy()
      await app.close()
    })
    await once(front, 'listening')
    const { port } = front.address() as AddressInfo
    const early = Buffer.from('GET /early HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')

    // The source of the SYN may be spoofed: nobody has answered from there.
    const connecting = once(front, 'connection') as Promise<[net.Socket]>
    player.syn({
      source: balancer, destination: serverAddresses.IPv4, port, client: [toa(254, '203.0.113.7', 1), ...linuxSynOptions(1)], syn: { payload: early }
    })
    const [spoofed] = await connecting
    t.equal(state(spoofed), TCP_SYN_RECV, 'the kernel has accepted it')
    app.server.emit('connection', spoofed)
    t.match(app.realIp.lookup(spoofed), { address: undefined, trust: 'unverified', reason: 'unverified-peer', transportPeer: undefined })

    // Nor is what came on the SYN any better once the handshake is done.
    const next = once(front, 'connection') as Promise<[net.Socket]>
    const connection = await player.connect({
      source: balancer, destination: serverAddresses.IPv4, port, client: linuxSynOptions(1), syn: { payload: early }
    })
    const [finished] = await next
    for (let turn = 0; turn < 1000 && state(finished) !== TCP_ESTABLISHED; turn++) await new Promise((resolve) => setImmediate(resolve))
    t.equal(state(finished), TCP_ESTABLISHED)
    t.ok(hasSynData(finished))
    app.server.emit('connection', finished)
    t.match(app.realIp.lookup(finished), { address: undefined, trust: 'unverified', reason: 'unverified-peer' })
    connection.destroy()

    front.on('connection', (socket) => { app.server.emit('connection', socket) })
    const claim = nextClient()
    const visitor = await visit(player, { protocol: 'http', port, source: balancer, claim })
    t.match(await visitor.get(), { ...claim, trust: 'trusted', transportPeer: { address: balancer } }, 'a connection without data on its SYN')
    visitor.close()
  })

  inLab('without a flood nobody asks sock_diag', async (t, lab) => {
    const asked = countDiags(t)
    lab.module.start()
    const player = open(t)
    for (const protocol of protocols) {
      const served = await serve(t, protocol, { trustedPeers: [balancer] })
      // It is tried once, when the server begins to listen.
      const before = asked()
      await visitors(t, player, served, protocol, 10)
      t.equal(asked(), before)
    }
  })
})
