import { createHash } from 'node:crypto'
import { once } from 'node:events'
import http, { type IncomingMessage } from 'node:http'
import http2 from 'node:http2'
import type { Duplex } from 'node:stream'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import websocket from '@fastify/websocket'
import type { FastifyInstance } from 'fastify'
import type { RealAddress } from 'fastify-real-ip'
import WebSocket from 'ws'
import type { Kind } from '../kinds'

// What clients do on a connection whose header was written: each tells which address the application had, and throws
// where not exactly its own bytes have reached it.

export interface Exchange {
  readonly name: string
  readonly kind: Kind['name']
  run (wire: Duplex): Promise<RealAddress[]>
}

/** The routes that the exchanges ask. */
export async function addRoutes (app: FastifyInstance, kind: Kind['name']): Promise<void> {
  // It is for HTTP/1 servers.
  if (kind === 'http' || kind === 'https') await app.register(websocket)
  app.addContentTypeParser('application/octet-stream', { parseAs: 'buffer' }, (_request, body, done) => { done(null, body) })
  app.get('/', (request) => request.realAddress)
  app.get('/number/:number', (request) => ({ number: (request.params as { number: string }).number, realAddress: request.realAddress }))
  app.post('/upload', (request) => {
    const body = request.body as Buffer
    return { length: body.length, digest: digest(body), realAddress: request.realAddress }
  })
  if (kind !== 'http' && kind !== 'https') return
  app.get('/echo', { websocket: true }, (socket, request) => {
    socket.on('message', (data) => { socket.send(data) })
    socket.send(JSON.stringify(request.realAddress))
  })
}

const UPLOAD = Buffer.from(Array.from({ length: 200_000 }, (_, i) => i * 31 + (i >> 8) & 255))
const PIPELINED = 10

const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')

function same (actual: unknown, expected: unknown): void {
  if (JSON.stringify(actual) !== JSON.stringify(expected)) throw new Error(`${JSON.stringify(actual)}, not ${JSON.stringify(expected)}`)
}

async function secure (wire: Duplex, alpn: 'http/1.1' | 'h2'): Promise<TLSSocket> {
  const socket = connectTls({ socket: wire, rejectUnauthorized: false, ALPNProtocols: [alpn] })
  // Its last words may find nobody.
  socket.on('error', () => {})
  await once(socket, 'secureConnect')
  return socket
}

async function textOf (stream: NodeJS.ReadableStream): Promise<string> {
  let text = ''
  for await (const part of stream.setEncoding('utf8')) text += part as string
  return text
}

async function ask1 (connection: Duplex, path: string, body?: Buffer): Promise<any> {
  const request = http.request({
    createConnection: () => connection as never,
    path,
    host: 'localhost',
    method: body === undefined ? 'GET' : 'POST',
    headers: { connection: 'close', ...body && { 'content-type': 'application/octet-stream', 'content-length': body.length } }
  }).on('error', () => {}).end(body)
  const [response] = await once(request, 'response') as [IncomingMessage]
  return JSON.parse(await textOf(response))
}

async function ask2 (connection: Duplex, path: string, body?: Buffer): Promise<any> {
  const session = http2.connect('http://localhost', { createConnection: () => connection })
  session.on('error', () => {})
  const stream = session.request({
    ':path': path, ':method': body === undefined ? 'GET' : 'POST', ...body && { 'content-type': 'application/octet-stream' }
  }).end(body)
  const answer = JSON.parse(await textOf(stream))
  session.destroy()
  return answer
}

type Ask = typeof ask1

async function get (ask: Ask, connection: Duplex): Promise<RealAddress[]> {
  return [await ask(connection, '/')]
}

async function upload (ask: Ask, connection: Duplex): Promise<RealAddress[]> {
  const { length, digest: found, realAddress } = await ask(connection, '/upload', UPLOAD)
  same([length, found], [UPLOAD.length, digest(UPLOAD)])
  return [realAddress]
}

/** All requests in one write. */
async function pipeline (connection: Duplex): Promise<RealAddress[]> {
  const numbers = Array.from({ length: PIPELINED }, (_, i) => String(i))
  connection.write(numbers.map((number) =>
    `GET /number/${number} HTTP/1.1\r\nHost: localhost\r\n${number === String(PIPELINED - 1) ? 'Connection: close\r\n' : ''}\r\n`).join(''))
  const answers = [...(await textOf(connection)).matchAll(/\r\n\r\n(\{.*?\})(?=HTTP\/1\.1 200|$)/gs)].map(([, json]) => JSON.parse(json as string))
  same(answers.map(({ number }) => number), numbers)
  return answers.map(({ realAddress }) => realAddress)
}

async function echo (connection: Duplex): Promise<RealAddress[]> {
  const socket = new WebSocket('ws://localhost/echo', { createConnection: () => connection as never })
  const [first] = await once(socket, 'message')
  const message = UPLOAD.subarray(0, 70_000)
  socket.send(message)
  const [echoed] = await once(socket, 'message')
  same(digest(echoed), digest(message))
  socket.terminate()
  return [JSON.parse(String(first))]
}

const over = (alpn: 'http/1.1' | 'h2', then: (connection: Duplex) => Promise<RealAddress[]>) =>
  async (wire: Duplex) => await then(await secure(wire, alpn))

export const exchanges: readonly Exchange[] = [
  { name: 'http', kind: 'http', run: (wire) => get(ask1, wire) },
  { name: 'http, an upload', kind: 'http', run: (wire) => upload(ask1, wire) },
  { name: 'http, pipelining', kind: 'http', run: pipeline },
  { name: 'ws', kind: 'http', run: echo },
  { name: 'https', kind: 'https', run: over('http/1.1', (connection) => get(ask1, connection)) },
  { name: 'https, an upload', kind: 'https', run: over('http/1.1', (connection) => upload(ask1, connection)) },
  { name: 'https, pipelining', kind: 'https', run: over('http/1.1', pipeline) },
  { name: 'wss', kind: 'https', run: over('http/1.1', echo) },
  { name: 'h2c', kind: 'h2c', run: (wire) => get(ask2, wire) },
  { name: 'h2c, an upload', kind: 'h2c', run: (wire) => upload(ask2, wire) },
  { name: 'h2', kind: 'h2', run: over('h2', (connection) => get(ask2, connection)) },
  { name: 'h2, an upload', kind: 'h2', run: over('h2', (connection) => upload(ask2, connection)) },
  { name: 'h2-http1', kind: 'h2-http1', run: over('http/1.1', (connection) => get(ask1, connection)) },
  { name: 'h2-http1, over HTTP/2', kind: 'h2-http1', run: over('h2', (connection) => get(ask2, connection)) }
]

const CLIENT_HELLO = Buffer.from('16030100300100002c0303' + '11'.repeat(32) + '00000213010100000100', 'hex')
const HTTP2_PREFACE = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00', 'latin1')
const HTTP1_REQUEST = Buffer.from('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')

/** What a client's first bytes on a server of this kind are like. */
export const firstBytes = (kind: Kind['name']): Buffer =>
  kind === 'http' ? HTTP1_REQUEST : kind === 'h2c' ? HTTP2_PREFACE : CLIENT_HELLO
