import { once } from 'node:events'
import * as http from 'node:http'
import * as http2 from 'node:http2'
import type * as net from 'node:net'
import { Duplex } from 'node:stream'
import { text } from 'node:stream/consumers'
import * as tls from 'node:tls'

export type Protocol = 'http' | 'https' | 'h2c' | 'h2'

/** By name, each line of a header. */
type Headers = Readonly<Record<string, string[]>>

/** A client on a connection of its own, of a server that answers with JSON. */
export interface Speaker<Answer> {
  readonly raw: net.Socket
  readonly localPort: number
  readonly localAddress: string
  ask (path: string, headers?: Headers): Promise<Answer>
  /** resolves with the request on its way and its answer not awaited */
  send (path: string, headers?: Headers): Promise<void>
  end (): void
}

type Ways<Answer> = Pick<Speaker<Answer>, 'ask' | 'send' | 'end'>

let secureContext: tls.SecureContext | undefined // one for all: to make it takes longer than a handshake

function startTls (socket: Duplex, protocol: Protocol): tls.TLSSocket {
  secureContext ??= tls.createSecureContext()
  const secure = tls.connect({ socket, secureContext, rejectUnauthorized: false, ALPNProtocols: [protocol === 'h2' ? 'h2' : 'http/1.1'] })
  secure.on('error', () => {})
  return secure
}

/** Our hello goes out, the server's answer comes in, and nobody reads it. */
export async function halfOfTls (raw: net.Socket, protocol: Protocol): Promise<void> {
  const wire = new Duplex({
    read () {},
    write (chunk, _encoding, done) { raw.write(chunk, done) }
  })
  const secure = startTls(wire, protocol)
  await once(raw, 'data')
  secure.destroy()
}

export async function speak<Answer> (raw: net.Socket, protocol: Protocol): Promise<Speaker<Answer>> {
  const { localPort = 0, localAddress = '' } = raw
  let socket = raw
  if (protocol === 'https' || protocol === 'h2') {
    socket = startTls(raw, protocol)
    await once(socket, 'secureConnect')
  }
  const speaker = protocol === 'http' || protocol === 'https' ? speakHttp1<Answer>(socket) : await speakHttp2<Answer>(socket)
  return { raw, localPort, localAddress, ...speaker }
}

function speakHttp1<Answer> (socket: net.Socket): Ways<Answer> {
  const agent = Object.assign(new http.Agent({ keepAlive: true, maxSockets: 1 }), { createConnection: () => socket })
  const request = (path: string, headers: Headers = {}) => http.request({ agent, path, headers, host: 'oracle' })
  return {
    async ask (path, headers) {
      const sent = request(path, headers).end()
      const [response] = await once(sent, 'response') as [http.IncomingMessage]
      return JSON.parse(await text(response))
    },
    async send (path, headers) {
      const sent = request(path, headers).on('error', () => {}).end()
      await once(sent, 'finish')
    },
    end () { socket.end() }
  }
}

async function speakHttp2<Answer> (socket: net.Socket): Promise<Ways<Answer>> {
  const session = http2.connect('http://oracle', { createConnection: () => socket })
  session.on('error', () => {})
  await once(session, 'connect')
  return {
    async ask (path, headers) {
      return JSON.parse(await text(session.request({ ...headers, ':path': path })))
    },
    async send (path, headers) {
      session.request({ ...headers, ':path': path }).on('error', () => {})
      // frames keep their order: once the ping is answered, the request has been read
      await new Promise<void>((resolve, reject) => {
        session.ping(error => error === null ? resolve() : reject(error))
      })
    },
    end () { session.close() }
  }
}

export async function reset (raw: net.Socket): Promise<void> {
  if (raw.closed) return
  const closed = once(raw, 'close')
  raw.resetAndDestroy()
  await closed
}

export async function end (speaker: Speaker<unknown>): Promise<void> {
  if (speaker.raw.closed) return
  const closed = once(speaker.raw, 'close')
  speaker.end()
  await closed
}
