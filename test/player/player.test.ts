import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { connect as connectHttp2, createServer as createHttp2Server } from 'node:http2'
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import { balancers, fill, through } from './balancers'
import { balancerAddresses, hasIPv6, serverAddresses } from './namespace'
import {
  addressBytes, atomicFragmentHeader, IPPROTO_DSTOPTS, IPPROTO_HOPOPTS, optionsHeader, routingHeader
} from './packet'
import { play } from './play'
import { Connection, openPlayer, type Handshake, type Player } from './player'
import { savedSyn, saveSyn } from './saved-syn'
import { testInNamespace } from './test-in-namespace'
import {
  eol, fastOpenCookie, fastOpenExperimental, linuxSynOptions, mss, nop, smc, toa, withLength
} from './tcp-options'

// <net/tcp.h>
const TFO_SERVER_ENABLE = 0x2
const TFO_SERVER_COOKIE_NOT_REQD = 0x200
const TFO_SERVER_WO_SOCKOPT1 = 0x400

const toaV4 = toa(254, '203.0.113.7', 51234)
const toaV6 = toa(253, '2001:db8::7', 51234)

testInNamespace(__filename, () => {
  for (const family of hasIPv6() ? ['IPv4', 'IPv6'] as const : ['IPv4'] as const) {
    const route = (server: Server) => ({
      source: balancerAddresses[family],
      destination: serverAddresses[family],
      port: (server.address() as AddressInfo).port
    })

    t.test(`HTTP over ${family}: requests one after another, until the server closes`, async (t) => {
      const server = await listen(t, createHttpServer((request, response) => {
        response.end(`${request.url} for ${request.socket.remoteAddress} ${request.socket.remotePort}`)
      }))
      const connection = await open(t).connect(route(server))
      const peer = `${family === 'IPv4' ? '::ffff:' : ''}${balancerAddresses[family]} ${connection.sourcePort}`
      t.match(await connection.request('GET /1 HTTP/1.1\r\nHost: x\r\n\r\n'), { status: 200, body: `/1 for ${peer}` })
      t.match(await connection.request('GET /2 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n'), {
        headers: { connection: 'close' },
        body: `/2 for ${peer}`
      })
      connection.end()
      t.equal(await connection.ending(), 'FIN')
    })

    t.test(`HTTP/2 over ${family}, and more than the windows hold, both ways`, async (t) => {
      const server = await listen(t, createHttp2Server((request, response) => request.pipe(response)))
      const connection = await open(t).connect(route(server))
      const session = connectHttp2('http://x', { createConnection: () => connection })
      const body = Buffer.from(Array.from({ length: 300_000 }, (_, i) => i % 251))
      const stream = session.request({ ':method': 'POST' })
      stream.end(body)
      const echoed: Buffer[] = []
      for await (const chunk of stream) echoed.push(chunk as Buffer)
      t.ok(Buffer.concat(echoed).equals(body))
      session.close()
      await once(session, 'close')
    })

    const shapes: Record<string, Handshake> = {
      "Linux's own options": {},
      'no options': { client: [] },
      'IPv4 TOA, 254/8, alone': { client: [toaV4] },
      'IPv4 TOA, 254/8, in front of a client\'s options': through(balancers.lvs, toaV4),
      'IPv4 TOA, 200/8, after a client\'s options': through(balancers.appending, toa(200, '203.0.113.7', 51234)),
      'IPv6 TOA, 253/20': through(balancers.lvs, toaV6),
      'IPv6 TOA, 254/20': through(balancers.appending, toa(254, '2001:db8::7', 51234)),
      'two TOAs that differ': { client: [toaV4, toa(254, '198.51.100.1', 1), mss(1460)] },
      'TOA of both kinds': { client: [toaV4, toaV6] },
      'TOA behind the end of the list': { client: [eol, toaV4] },
      'TOA cut off by the end of the header': { client: [nop, nop, nop, toaV4.subarray(0, 5)] },
      'an option without its length, at the very end': { client: [nop, nop, nop, toaV4.subarray(0, 1)] },
      // Not in front: with support for TCP's MD5 option, newer kernels drop a segment with such a length and 18 bytes left.
      ...Object.fromEntries([0, 1, 7, 10, 18, 40, 255].map((length) =>
        [`TOA that says its length is ${length}`, { client: [...linuxSynOptions(1), withLength(toaV4, length)] }])),
      'TOA as long as all options together': { client: [withLength(Buffer.concat([toaV4, Buffer.alloc(32)]), 40)] },
      'options filled to the last byte': { client: fill([toaV4, ...linuxSynOptions(1)]) },
      'a length that is no multiple of four': { client: [toaV4, nop] },
      'a data offset beyond the options': { client: [toaV4], syn: { dataOffset: 15 } },
      "Fast Open's request for a cookie, of both kinds": {
        client: [fastOpenCookie(Buffer.alloc(0)), fastOpenExperimental(Buffer.alloc(8))]
      },
      "SMC's announcement": { client: [smc, ...linuxSynOptions(1)] },
      'payload on the SYN': { ...through(balancers.lvs, toaV4), syn: { payload: Buffer.from('early') } },
      'no bare ACK: the first data completes the handshake': { client: [toaV4], ack: { skip: true } },
      'another option on a SYN sent again': { client: [toaV4], syn: { retransmit: { options: [toaV6] } } }
    }
    if (family === 'IPv4') {
      shapes["IPv4's options"] = { client: [toaV4], syn: { ipOptions: Buffer.alloc(40, 1) } }
    } else {
      const hopByHop = optionsHeader(IPPROTO_HOPOPTS)
      const destination = optionsHeader(IPPROTO_DSTOPTS, 24)
      shapes['a hop-by-hop header'] = { client: [toaV4], syn: { extensionHeaders: [hopByHop] } }
      shapes['a kilobyte of extension headers'] = {
        client: [toaV4],
        syn: { extensionHeaders: Array.from({ length: 4 }, () => optionsHeader(IPPROTO_DSTOPTS, 256)) }
      }
      shapes['every extension header'] = {
        client: [toaV4],
        syn: { extensionHeaders: [hopByHop, destination, routingHeader, atomicFragmentHeader, destination] }
      }
    }

    t.test(`what is played over ${family} is what the kernel saves`, async (t) => {
      const server = await listen(t, createServer(echo))
      saveSyn(server)
      const player = open(t)
      for (const [name, handshake] of Object.entries(shapes)) {
        const accepted = once(server, 'connection')
        const connection = await player.connect({ ...route(server), ...handshake })
        connection.write('data')
        const [socket] = await accepted as [Socket]
        t.equal(savedSyn(socket)?.toString('hex'), withoutPayload(connection.syn, handshake).toString('hex'), name)
        const sent = `${handshake.syn?.payload ?? ''}data`
        t.equal((await connection.receive(sent.length)).toString(), sent, `${name}: the connection works`)
        connection.destroy()
      }
    })

    t.test(`SYN cookies over ${family} leave nothing saved`, async (t) => {
      sysctl(t, 'tcp_syncookies', '2')
      const server = await listen(t, createServer(echo))
      saveSyn(server)
      const accepted = once(server, 'connection')
      const connection = await open(t).connect({ ...route(server), ...through(balancers.lvs, toaV4) })
      const [socket] = await accepted as [Socket]
      t.equal(savedSyn(socket), undefined)
      connection.write('data')
      t.equal((await connection.receive(4)).toString(), 'data')
    })

    t.test(`Fast Open without cookies over ${family}: one spoofed segment is a whole request`, async (t) => {
      sysctl(t, 'tcp_fastopen', String(TFO_SERVER_ENABLE | TFO_SERVER_COOKIE_NOT_REQD | TFO_SERVER_WO_SOCKOPT1))
      const server = await listen(t, createHttpServer((request, response) => response.end(request.url)))
      saveSyn(server)
      const player = open(t)
      const payload = Buffer.from('GET /early HTTP/1.1\r\nHost: x\r\n\r\n')
      const accepted = once(server, 'connection')
      const requested = once(server, 'request')
      const handshake = { client: [toaV4], syn: { payload } }
      const syn = player.syn({ ...route(server), ...handshake })
      const [socket] = await accepted as [Socket]
      t.equal(savedSyn(socket)?.toString('hex'), withoutPayload(syn, handshake).toString('hex'))
      await requested
      const connection = await player.connect({ ...route(server), ...handshake })
      t.match(await connection.receive((received) => received.includes('/early') ? received.length : undefined), /200 OK/)
      server.closeAllConnections()
    })

    t.test(`a port of ${family} where nobody listens refuses`, async (t) => {
      await t.rejects(open(t).connect({ source: balancerAddresses[family], destination: serverAddresses[family], port: 9 }),
        { message: 'the server has refused the connection' })
    })

    t.test(`a server of ${family} that resets`, async (t) => {
      const server = await listen(t, createServer((socket) => socket.resetAndDestroy()))
      const connection = await open(t).connect(route(server))
      await t.rejects(connection.request('GET / HTTP/1.1\r\n\r\n'), { message: 'the server has reset the connection' })
      t.equal(await connection.ending(), 'RST')
    })

    t.test(`spoofed SYNs over ${family} are never accepted, and keep nobody out`, async (t) => {
      let connections = 0
      const server = await listen(t, createServer((socket) => {
        connections++
        echo(socket)
      }))
      const player = open(t)
      for (let i = 1; i <= 100; i++) {
        player.syn({ ...route(server), source: family === 'IPv4' ? `198.51.100.${i}` : `2001:db8::${i}`, client: [toaV4] })
      }
      const connection = await player.connect(route(server))
      connection.write('data')
      t.equal((await connection.receive(4)).toString(), 'data')
      t.equal(connections, 1)
    })
  }

  t.test('a SYN that nobody answers is sent again, and given up when the caller says so', async (t) => {
    const player = open(t)
    // Linux drops what has a source address of its own.
    const unanswered = { source: serverAddresses.IPv4, destination: serverAddresses.IPv4, port: 9 }
    await t.rejects(player.connect({ ...unanswered, signal: AbortSignal.timeout(10) }),
      { message: 'the server has not answered the SYN' })

    const sent: Uint8Array[] = []
    const ends = { source: addressBytes('10.0.0.2'), sourcePort: 1, destination: addressBytes('10.0.0.1'), destinationPort: 2 }
    await new Promise<void>((resolve) => {
      const connection = new Connection(ends, {}, (packet) => {
        if (sent.push(packet) < 2) return
        connection.destroy()
        resolve()
      })
      connection.start()
    })
    t.same(sent[0], sent[1])
  })

  t.test('a play: a server of its own, requests through the balancer, and the answers', async (t) => {
    const responses = await play({
      server: require.resolve('./echo-server'),
      visits: [{ client: '203.0.113.7', clientPort: 1 }, { client: '2001:db8::7', clientPort: 2, path: '/path' }]
    })
    t.match(responses, [{ status: 200, body: '/ 10.0.0.2' }, { status: 200, body: '/path fd00::2' }])
  })
})

function withoutPayload (packet: Buffer, { syn }: Handshake): Buffer {
  return packet.subarray(0, packet.length - (syn?.payload?.length ?? 0))
}

function echo (socket: Socket): void {
  // A connection that the player resets is no news.
  socket.on('error', () => {}).pipe(socket)
}

function open (t: Test): Player {
  const player = openPlayer()
  t.teardown(() => player.close())
  return player
}

async function listen<Listener extends Server> (t: Test, server: Listener): Promise<Listener> {
  await once(server.listen(0, '::'), 'listening')
  t.teardown(() => server.close())
  return server
}

function sysctl (t: Test, name: string, value: string): void {
  const path = `/proc/sys/net/ipv4/${name}`
  const before = readFileSync(path)
  writeFileSync(path, value)
  t.teardown(() => writeFileSync(path, before))
}
