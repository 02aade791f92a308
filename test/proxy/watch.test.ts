import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import t, { type Test } from 'tap'
import type { Seen } from '../../lib/cli/sighting'
import { type Libc, loadLibc } from '../../lib/kernel/libc'
import { describeProxyBytes } from '../../lib/cli/proxy'
import { readArguments, type WatchArguments } from '../../lib/cli/arguments'
import { watch } from '../../lib/cli/watch'
import { startWatch } from '../cli/cli'
import { badHeaders, goodHeaders } from './headers'

// watch PORT --proxy-protocol: each header as it is read, and what is wrong with a bad one.

const nothing = process.platform !== 'linux' && 'needs Linux'
const PEER = '127.0.0.9'
const request = Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n')

/** Sends the parts one after the other, each after `next()`. */
async function send (t: Test, port: number, bytes: Buffer, localAddress = PEER): Promise<Socket> {
  const socket = connect({ port, host: '127.0.0.1', localAddress }).on('error', () => {})
  t.teardown(() => socket.destroy())
  await once(socket, 'connect')
  socket.write(bytes)
  return socket
}

t.test('every good and bad header', { skip: nothing, timeout: 60_000 }, async (t) => {
  const { port, seen, notes } = await startWatch(t, ['--json', '--proxy-protocol', '--trusted-peers', PEER])
  t.match(notes[0], /^fastify-real-ip: source proxy-protocol, from the trusted peers/)
  for (const { name, bytes, source, version } of goodHeaders) {
    await send(t, port, Buffer.concat([bytes, request]))
    const { header, decision, transportPeer, notes, sources } = await seen()
    // As much as is looked at may be the header alone.
    t.same(header?.filter((line) => !/^ {2}then \d+ bytes/.test(line)), describeProxyBytes(bytes), name)
    t.match(decision, source === undefined
      ? { address: PEER, reason: 'proxy-local', trust: 'trusted', reset: false }
      : { address: source[0], source: 'proxy-protocol', trust: 'trusted', reset: false, proxyProtocol: { version } }, name)
    t.same([transportPeer?.address, notes, sources], [PEER, [], []])
  }
  for (const { name, bytes, reason, at } of badHeaders) {
    await send(t, port, bytes)
    const { header, decision } = await seen()
    t.match(header?.[0], new RegExp(`^${reason} at byte ${at}: `), name)
    t.match(decision, { source: 'none', reason, reset: true })
  }
})

t.test('a header in pieces, one that does not end, and strangers', { skip: nothing }, async (t) => {
  const { port, seen, noted } = await startWatch(t, ['--json', '--proxy-protocol', '--trusted-peers', PEER])
  const { bytes } = goodHeaders.find(({ name }) => name === 'v2 TCP over IPv4') as typeof goodHeaders[number]
  const slow = await send(t, port, bytes.subarray(0, 20))
  const stranger = await send(t, port, Buffer.concat([bytes, request]), '127.0.0.66')
  t.match(await seen(), { connection: 2, header: undefined, decision: { address: '127.0.0.66', trust: 'untrusted' }, notes: [/^The peer is not in --trusted-peers/] })
  t.match(await noted('Connection 2'), /begins with a header of the PROXY protocol, .* If 127\.0\.0\.66 is that balancer, read it with sources: \['proxy-protocol'\], trustedPeers: \['127\.0\.0\.66'\]/)
  stranger.destroy()
  slow.write(bytes.subarray(20))
  t.match(await seen(), { connection: 1, header: [/^PROXY version 2, PROXY, TCP over IPv4/], syn: { payload: false }, transportPeer: { port: slow.localPort, by: 'saved-syn' }, decision: { address: '203.0.113.7' } })
  const cut = await send(t, port, bytes.subarray(0, 20))
  cut.end()
  t.match(await seen(), { connection: 3, header: [/^the start of a PROXY header, 20 bytes: the rest did not arrive/, /^ {2}0d 0a/], decision: { reason: 'proxy-cut-short', reset: true } })
  const silent = await send(t, port, Buffer.alloc(0))
  silent.end()
  t.match(await seen(), { connection: 4, header: ['no bytes instead of a PROXY header'], decision: { reason: 'proxy-cut-short' } })
})

t.test('as text', { skip: nothing }, async (t) => {
  const { port, text, ended } = await startWatch(t, ['--proxy-protocol', '--trusted-peers', 'any', '--count', '2'])
  const { bytes } = goodHeaders.find(({ name }) => name.includes('ALPN')) as typeof goodHeaders[number]
  const first = await send(t, port, Buffer.concat([bytes, request]))
  await once(first, 'data')
  await send(t, port, request)
  const lines = (await text()).split('\n')
  t.equal(await ended, 0)
  t.ok(lines.includes(`  PROXY header     PROXY version 2, PROXY, TCP over IPv4, ${bytes.length} bytes`))
  t.ok(lines.includes('                     source       203.0.113.7:51234'))
  t.ok(lines.includes('                     TLV 0x01, ALPN, 2 bytes: "h2"'))
  t.ok(lines.includes('  the plugin says  203.0.113.7:51234 by proxy-protocol, trusted'))
  t.ok(lines.includes('  PROXY header     proxy-missing at byte 0: not the start of a PROXY header'))
  t.ok(lines.some((line) => line.includes('trusted (proxy-missing: not enabled in the balancer, or another program on its host connected); the connection is reset')))
})

t.test('Ctrl-C ends it while a header is awaited', { skip: nothing, timeout: 20_000 }, async (t) => {
  const stop = new AbortController()
  const seen: Seen[] = []
  let ended: Promise<void> | undefined
  const port = await new Promise<number>((resolve) => {
    ended = watch(readArguments(['watch', '0', '--json', '--proxy-protocol', '--trusted-peers', PEER]) as WatchArguments, {
      libc: loadLibc() as Libc,
      openCapture: () => 1,
      say: (line) => { seen.push(JSON.parse(line)) },
      note: (text) => {
        const found = /^Listening on .*:(\d+);/.exec(text)?.[1]
        if (found !== undefined) resolve(Number(found))
      },
      terminal: {},
      signal: stop.signal
    })
  })
  const socket = await send(t, port, Buffer.from('PROXY'))
  const closed = new Promise((resolve) => { socket.once('close', resolve) })
  // Once it has answered another connection, it has this one.
  const other = await send(t, port, request, '127.0.0.66')
  await once(other, 'data')
  stop.abort()
  await closed
  await ended
  t.match(seen.at(-1), { connection: 1, decision: { reason: 'proxy-cut-short', reset: true } })
})
