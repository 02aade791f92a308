import dns from 'node:dns'
import { readFileSync } from 'node:fs'
import http, { type OutgoingHttpHeaders } from 'node:http'
import http2 from 'node:http2'
import net, { type AddressInfo } from 'node:net'
import { networkInterfaces } from 'node:os'
import path from 'node:path'
import tls from 'node:tls'
import { once } from 'node:events'
import type { Test } from 'tap'
import Fastify, { type FastifyInstance } from 'fastify'

// The same path from test/ and from dist/test/.
const root = path.dirname(require.resolve('fastify-real-ip/package.json'))
const fixture = (name: string) => readFileSync(path.join(root, 'test/fixtures', name))
export const key = fixture('key.pem')
export const cert = fixture('cert.pem')

const manyLoopbacks = process.platform === 'linux' || process.platform === 'win32'
/** For tap's `skip`, where a test needs clients of several addresses. */
export const oneLoopback = !manyLoopbacks && 'only 127.0.0.1 of 127.0.0.0/8 is here'
/** A client's address: not its server's, where there are others. */
export const CLIENT = manyLoopbacks ? '127.0.0.9' : '127.0.0.1'

const ipv6 = Object.values(networkInterfaces()).flat().some((address) => address?.address === '::1')
/** For tap's `skip`. */
export const noIPv6 = !ipv6 && 'no IPv6 loopback here'

export interface Client {
  /** The raw TCP socket below everything. */
  readonly socket: net.Socket
  readonly localPort: number
  get (path: string, headers?: OutgoingHttpHeaders): Promise<any>
  close (): Promise<void>
}

/** A kind of server, with a client that keeps one connection of it. */
export interface Kind {
  readonly name: 'http' | 'https' | 'h2c' | 'h2' | 'h2-http1'
  create (options?: object): FastifyInstance
  connect (port: number, options?: net.NetConnectOpts | object): Promise<Client>
}

async function open (port: number, options: object): Promise<net.Socket> {
  const socket = net.connect({ host: '127.0.0.1', port, ...options })
  await once(socket, 'connect')
  return socket
}

async function openTls (socket: net.Socket, alpn: string): Promise<tls.TLSSocket> {
  const secure = tls.connect({ socket, rejectUnauthorized: false, ALPNProtocols: [alpn] })
  await once(secure, 'secureConnect')
  return secure
}

function client1 (socket: net.Socket, secure: net.Socket = socket): Client {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 })
  agent.createConnection = () => secure
  return {
    socket,
    localPort: socket.localPort as number,
    async get (path, headers = {}) {
      const request = http.get({ agent, path, host: '127.0.0.1', headers })
      const [response] = await once(request, 'response') as [http.IncomingMessage]
      return JSON.parse(await text(response))
    },
    async close () {
      agent.destroy()
      if (!socket.closed) {
        secure.destroy()
        socket.destroy()
        await once(socket, 'close')
      }
    }
  }
}

function client2 (socket: net.Socket, secure: net.Socket = socket): Client {
  const session = http2.connect('http://127.0.0.1', { createConnection: () => secure })
  return {
    socket,
    localPort: socket.localPort as number,
    async get (path, headers = {}) {
      return JSON.parse(await text(session.request({ ...headers, ':path': path })))
    },
    async close () {
      if (session.closed) return
      session.close()
      await once(session, 'close')
    }
  }
}

async function text (stream: NodeJS.ReadableStream): Promise<string> {
  let body = ''
  stream.setEncoding('utf8')
  for await (const chunk of stream) body += chunk as string
  return body
}

export const kinds: ReadonlyArray<Kind> = [
  {
    name: 'http',
    create: (options) => Fastify({ ...options }),
    connect: async (port, options = {}) => client1(await open(port, options))
  },
  {
    name: 'https',
    create: (options) => Fastify({ https: { key, cert }, ...options }) as unknown as FastifyInstance,
    async connect (port, options = {}) {
      const socket = await open(port, options)
      return client1(socket, await openTls(socket, 'http/1.1'))
    }
  },
  {
    name: 'h2c',
    create: (options) => Fastify({ http2: true, ...options }) as unknown as FastifyInstance,
    connect: async (port, options = {}) => client2(await open(port, options))
  },
  {
    name: 'h2',
    create: (options) => Fastify({ http2: true, https: { key, cert }, ...options }) as unknown as FastifyInstance,
    async connect (port, options = {}) {
      const socket = await open(port, options)
      return client2(socket, await openTls(socket, 'h2'))
    }
  },
  {
    name: 'h2-http1',
    create: (options) =>
      Fastify({ http2: true, https: { key, cert, allowHTTP1: true }, ...options }) as unknown as FastifyInstance,
    async connect (port, options = {}) {
      const socket = await open(port, options)
      return client1(socket, await openTls(socket, 'http/1.1'))
    }
  }
]

/** Listens on a free port of 127.0.0.1, or as `options` say, and gives the port. */
export async function listen (app: FastifyInstance, options: object = {}): Promise<number> {
  await app.listen({ port: 0, host: '127.0.0.1', ...options })
  return (app.server.address() as AddressInfo).port
}

/** The answer to one request, on a connection of its own; 'reset' if there is none. */
export async function askOnce (kind: Kind, port: number, localAddress: string): Promise<any> {
  const client = await kind.connect(port, { localAddress }).catch(() => undefined)
  if (client === undefined) return 'reset'
  client.socket.on('error', () => {})
  try {
    return await client.get('/')
  } catch {
    return 'reset'
  } finally {
    await client.close()
  }
}

/** localhost as most machines have it: both loopback addresses, whatever this one's hosts file says. */
export function bothLocalhosts (t: Test): void {
  const { lookup } = dns
  dns.lookup = ((name: string, ...rest: any[]) => {
    if (name !== 'localhost') return (lookup as any)(name, ...rest)
    const callback = rest.at(-1)
    const both = [{ address: '127.0.0.1', family: 4 }, { address: '::1', family: 6 }]
    process.nextTick(() => rest[0].all === true ? callback(null, both) : callback(null, '127.0.0.1', 4))
  }) as typeof dns.lookup
  t.teardown(() => { dns.lookup = lookup })
}
