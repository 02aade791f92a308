import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import tls from 'node:tls'
import { answer } from './child'
import { Http2Client } from './http2-client'
import { IPv4 } from './network'

// A minimal client, so that the server is the bottleneck. It recognizes an answer by its length.

const CONCURRENCY = 16
const AT_ONCE = 100
const requestOf = (connection: string) => Buffer.from(
  `GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: ${IPv4.from ?? IPv4.host}\r\nConnection: ${connection}\r\n\r\n`)
const keepAlive = requestOf('keep-alive')
const close = requestOf('close')

interface Target {
  readonly port: number
  readonly host: string
  /** The client's own address; `undefined`: chosen by the kernel */
  readonly from?: string
  readonly count: number
  /** a PROXY header before each connection's request, in hexadecimal digits */
  readonly header?: string
  /** milliseconds from the connection to its first bytes */
  readonly pause?: number
}

const open = new Map<number, Socket[]>()

function dial ({ port, host, from }: Target, localPort = 0): Socket {
  return connect({ port, host, noDelay: true, ...(from !== undefined && { localAddress: from, localPort }) })
}

// Below the ephemeral ports: with an explicit source address, finding a free port takes ever longer.
const LOCAL_PORTS = { first: 10_000, count: 22_000 }
const TRIES = 100
let dialled = 0

async function connected (target: Target): Promise<Socket> {
  for (let tries = 1; ; tries++) {
    const socket = dial(target, LOCAL_PORTS.first + dialled++ % LOCAL_PORTS.count)
    try {
      await once(socket, 'connect')
      return socket
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE' || tries === TRIES) throw error
    }
  }
}

/** Connections that send nothing. */
async function idle (target: Target): Promise<void> {
  const sockets = open.get(target.port) ?? []
  open.set(target.port, sockets)
  while (sockets.length < target.count) {
    const more = Math.min(AT_ONCE, target.count - sockets.length)
    sockets.push(...await Promise.all(Array.from({ length: more }, () => connected(target))))
  }
}

async function hangUp ({ port }: Target): Promise<void> {
  for (const socket of open.get(port) ?? []) socket.resetAndDestroy()
  open.delete(port)
}

/** Sends one request on each idle connection. */
async function askEach ({ port }: Target): Promise<void> {
  const sockets = open.get(port) ?? []
  for (let i = 0; i < sockets.length; i += AT_ONCE) {
    await Promise.all(sockets.slice(i, i + AT_ONCE).map((socket) => {
      socket.write(keepAlive)
      return once(socket, 'data')
    }))
  }
}

/** `count` requests over a few connections that stay open between calls. */
async function requests (target: Target): Promise<void> {
  await idle({ ...target, count: CONCURRENCY })
  const sockets = open.get(target.port) as Socket[]
  const first = sockets[0] as Socket
  first.write(keepAlive)
  const [bytes] = await once(first, 'data') as [Buffer]
  if (!bytes.toString('latin1').startsWith('HTTP/1.1 200 ')) throw new Error(`unexpected answer: ${bytes}`)

  let left = target.count - 1
  await Promise.all(sockets.map((socket) => new Promise<void>((resolve, reject) => {
    let due = bytes.length
    const next = () => {
      if (left-- > 0) {
        due = bytes.length
        socket.write(keepAlive)
      } else {
        socket.off('data', onData).off('close', reject)
        resolve()
      }
    }
    const onData = (chunk: Buffer) => {
      due -= chunk.length
      if (due === 0) next()
    }
    socket.on('data', onData).on('close', reject)
    next()
  })))
}

/** `count` requests, each over a connection of its own. */
async function oneShots (
  count: number, open: () => Socket, ready: string, write = (socket: Socket) => { socket.write(close) }
): Promise<void> {
  let left = count
  const one = () => new Promise<void>((resolve, reject) => {
    const socket = open()
    let answered = false
    socket.on(ready, () => { write(socket) })
    socket.on('data', () => { answered = true })
    socket.on('error', reject)
    socket.on('close', () => answered ? resolve() : reject(new Error('closed without an answer')))
  })
  await Promise.all(Array.from({ length: CONCURRENCY }, async () => {
    while (left-- > 0) await one()
  }))
}

function connections (target: Target): Promise<void> {
  const bytes = Buffer.concat([Buffer.from(target.header ?? '', 'hex'), close])
  const { pause } = target
  const write = (socket: Socket) => {
    if (pause === undefined) socket.write(bytes)
    else setTimeout(() => { socket.write(bytes) }, pause)
  }
  return oneShots(target.count, () => dial(target), 'connect', write)
}

/** Sessions are not resumed: each connection makes a full handshake. */
const handshakes = (target: Target) =>
  oneShots(target.count, () => tls.connect({ socket: dial(target), rejectUnauthorized: false }), 'secureConnect')

const http2 = new Map<number, Http2Client>()

/** `count` requests over one HTTP/2 connection, which stays open between calls. */
async function streams (target: Target): Promise<void> {
  const client = http2.get(target.port) ?? new Http2Client(dial(target), IPv4.from ?? IPv4.host)
  http2.set(target.port, client)
  await client.request(target.count)
}

answer({ idle, hangUp, askEach, requests, connections, handshakes, streams })
