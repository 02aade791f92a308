import { once } from 'node:events'
import { createServer, get } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { setImmediate } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { noteFirstBytes } from '../../lib/cli/first-bytes'

/** A server whose notes are kept. */
async function serve (t: Test) {
  const notes: string[] = []
  const server = createServer((_request, response) => { response.end('hello') })
  noteFirstBytes(server, (_socket, text) => { notes.push(text) })
  t.teardown(() => { server.closeAllConnections(); server.close() })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return { server, notes, port: (server.address() as AddressInfo).port }
}

async function send (port: number, bytes: Buffer | string): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  socket.write(bytes)
  return String(await buffer(socket))
}

/** Sends the rest once the server's parser has had the first bytes. */
async function sendPieces (t: Test, first: Buffer, rest: Buffer): Promise<{ notes: string[], answer: string }> {
  const { server, notes, port } = await serve(t)
  const accepted = once(server, 'connection') as Promise<[Socket]>
  const socket = connect(port, '127.0.0.1')
  const answer = buffer(socket)
  socket.write(first)
  const [served] = await accepted
  while (served.bytesRead < first.length) await setImmediate()
  socket.write(rest)
  return { notes, answer: String(await answer) }
}

t.test('forwarding headers are named with their values', async (t) => {
  const { port, notes } = await serve(t)
  const ask = async (headers: Record<string, string | string[]>) => {
    const [response] = await once(get({ port, host: '127.0.0.1', agent: false, headers }), 'response')
    response.resume()
  }
  await ask({ accept: '*/*', 'x-forwarded': '203.0.113.7' })
  t.same(notes, [], 'nothing is recognised in others')
  await ask({ 'X-Forwarded-For': '203.0.113.7, 10.0.0.2', Forwarded: 'for=203.0.113.7' })
  t.match(notes, [/^its request has forwarded: for=203\.0\.113\.7, x-forwarded-for: 203\.0\.113\.7, 10\.0\.0\.2\. .*'forwarded'/])
  await ask({ 'CF-Connecting-IP': `\xe9${'7'.repeat(300)}` })
  t.match(notes[1], /^its request has cf-connecting-ip: \?7{199}\. /, 'what a terminal would not stand is replaced')
})

t.test('once a connection', async (t) => {
  const { port, notes } = await serve(t)
  const request = 'GET / HTTP/1.1\r\nHost: x\r\nX-Real-IP: 203.0.113.7\r\n'
  await send(port, `${request}\r\n${request}Connection: close\r\n\r\n`)
  t.equal(notes.length, 1)
})

t.test('headers of the PROXY protocol', async (t) => {
  const signature = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1')
  const v2 = (command: number, family: number, ...addresses: number[]) =>
    Buffer.concat([signature, Buffer.of(command, family, 0, addresses.length, ...addresses)])
  const v6 = [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7]
  const cases: Array<[bytes: Buffer | string, note: RegExp]> = [
    ['PROXY TCP4 203.0.113.7 10.0.0.1 51234 443\r\nGET / HTTP/1.1\r\n\r\n', /version 1: PROXY TCP4 203\.0\.113\.7 10\.0\.0\.1 51234 443\. /],
    ['PROXY UNKNOWN\r\n', /version 1: PROXY UNKNOWN\. /],
    [v2(0x21, 0x11, 203, 0, 113, 7, 10, 0, 0, 1, 0xc8, 0x22, 1, 187), /version 2, from 203\.0\.113\.7:51234\. /],
    [v2(0x21, 0x21, ...v6, ...v6, 0xc8, 0x22, 1, 187), /version 2, from \[2001:db8::7\]:51234\. /],
    [v2(0x21, 0x11, 203, 0, 113, 7), /version 2, without a TCP address\. /],
    [v2(0x21, 0x21, 203, 0, 113, 7), /version 2, without a TCP address\. /],
    [v2(0x20, 0), /version 2, without a TCP address\. /],
    [Buffer.of(0x16, 3, 1, 0, 5, 1, 0, 0, 1, 3), /^it begins with TLS/]
  ]
  for (const [bytes, note] of cases) {
    const { port, notes } = await serve(t)
    t.match(await send(port, bytes), /^HTTP\/1\.1 400 /)
    t.match(notes, [note])
  }
})

t.test('headers of the PROXY protocol that come in pieces', async (t) => {
  const v2 = Buffer.from('\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\x0a\0\0\x01\xc8\x22\x01\xbb', 'latin1')
  const v1 = Buffer.from('PROXY TCP4 203.0.113.7 10.0.0.1 51234 443\r\nGET / HTTP/1.1\r\n\r\n')
  const cases: Array<[bytes: Buffer, longest: number, note: RegExp]> = [
    [v1, 3, /version 1: PROXY TCP4 203\.0\.113\.7 10\.0\.0\.1 51234 443\. /],
    [v2, 4, /version 2, from 203\.0\.113\.7:51234\. /]
  ]
  for (const [bytes, longest, note] of cases) {
    for (let length = 1; length <= longest; length++) {
      const { notes, answer } = await sendPieces(t, bytes.subarray(0, length), bytes.subarray(length))
      t.match(answer, /^HTTP\/1\.1 400 /)
      t.match(notes, [note], `${length} bytes first`)
    }
  }
  // What begins otherwise, or came after a request, is no header.
  const request = Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
  for (const [first, rest] of [[request, v1.subarray(3)], [request, v2.subarray(4)], [v1.subarray(0, 3), v1.subarray(4)], [v1.subarray(0, 2), v1.subarray(3)]] as const) {
    const { notes } = await sendPieces(t, first, rest)
    t.same(notes, [])
  }
})

t.test('other bytes are answered as Node.js does, and nothing is said of them', async (t) => {
  for (const bytes of ['nonsense\r\n\r\n', Buffer.of(0x16, 1), Buffer.from('\r\n\r\n\0\r\nQUIX\n', 'latin1')]) {
    const { port, notes } = await serve(t)
    t.match(await send(port, bytes), /^HTTP\/1\.1 400 Bad Request\r\nConnection: close\r\n\r\n$/)
    t.same(notes, [])
  }

  const { port, notes, server } = await serve(t)
  const accepted = once(server, 'connection')
  const failed = once(server, 'clientError')
  const socket = connect(port, '127.0.0.1').on('error', () => {})
  await once(socket, 'connect')
  await accepted
  socket.resetAndDestroy()
  const [error, served] = await failed
  t.equal(error.code, 'ECONNRESET')
  t.ok(served.destroyed)
  t.same(notes, [])
})
