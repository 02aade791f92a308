import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { get } from 'node:http'
import { get as getHttps, createServer as createHttpsServer } from 'node:https'
import { type AddressInfo, connect, createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls } from 'node:tls'
import t, { type Test } from 'tap'
import { formatAddress } from '../../lib/address/address'
import { decodeProxyHeader } from '../../lib/sources/proxy-header'
import { encodeProxyHeader } from '../../lib/sources/proxy-encode'
import { project } from '../docs/markdown'

// The sender's side as docs/proxy-protocol.md shows it: the header is what a server reads first.

const header = encodeProxyHeader({ source: { address: '203.0.113.7', port: 51234 }, destination: { address: '198.51.100.1', port: 443 } })

/** A server that takes the header off each connection, hands the rest to `then`, and keeps what the header says. */
async function serve (t: Test, then: (socket: import('node:net').Socket) => void) {
  const seen: string[] = []
  const server: Server = createServer((socket) => {
    socket.once('readable', () => {
      const bytes = socket.read() as Buffer
      const decoded = decodeProxyHeader(bytes, bytes.length)
      if (decoded === 'more' || 'reason' in decoded || decoded.source === undefined) throw new Error(JSON.stringify(decoded))
      seen.push(`${formatAddress(decoded.source)}:${decoded.source.port}`)
      socket.unshift(bytes.subarray(decoded.length))
      then(socket)
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => { server.close() })
  return { port: (server.address() as AddressInfo).port, seen }
}

const answer = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfine'

async function bodyOf (request: ReturnType<typeof get>): Promise<string> {
  const [response] = await once(request, 'response')
  return Buffer.concat(await response.toArray()).toString()
}

t.test('net.connect', async (t) => {
  const { port, seen } = await serve(t, (socket) => socket.end(answer))
  const socket = connect(port, '127.0.0.1')
  socket.write(header)
  socket.write('GET / HTTP/1.1\r\nHost: a.example\r\n\r\n')
  t.match(Buffer.concat(await socket.toArray()).toString(), /fine$/)
  t.same(seen, ['203.0.113.7:51234'])
})

t.test('http.request with createConnection, and without an agent', async (t) => {
  const { port, seen } = await serve(t, (socket) => socket.end(answer))
  for (let i = 0; i < 2; i++) {
    t.equal(await bodyOf(get({
      port,
      createConnection () {
        const socket = connect(port, '127.0.0.1')
        socket.write(header)
        return socket
      }
    })), 'fine')
  }
  t.same(seen, ['203.0.113.7:51234', '203.0.113.7:51234'], 'a connection each')
})

t.test('https.request: the header goes before TLS', async (t) => {
  const fixture = (name: string) => readFileSync(join(project, 'test/fixtures', name))
  const secure = createHttpsServer({ cert: fixture('cert.pem'), key: fixture('key.pem') }, (_request, response) => response.end('fine'))
  const { port, seen } = await serve(t, (socket) => { secure.emit('connection', socket) })
  t.equal(await bodyOf(getHttps({
    port,
    headers: { connection: 'close' },
    createConnection () {
      const socket = connect(port, '127.0.0.1')
      socket.write(header)
      return connectTls({ socket, servername: 'localhost', ca: fixture('cert.pem') })
    }
  })), 'fine')
  t.same(seen, ['203.0.113.7:51234'])
})
