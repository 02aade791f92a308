import type { Socket } from 'node:net'
import { once } from 'node:events'
import type { RealAddress } from 'fastify-real-ip'
import { expectConnection, send, type Way } from './wire'

export type Answer = RealAddress & { readonly worker?: number }

export interface Ask {
  readonly header?: Buffer
  /** How the header comes; else all is written when the client is connected, whoever accepts. */
  readonly way?: Way
  readonly path?: string
  readonly lines?: readonly string[]
}

/** One request over a connection of its own: the parsed answer, or the status of another answer, or how it ended without one. */
export async function askHttp (connect: () => Socket, { header = Buffer.alloc(0), way, path = '/', lines = [] }: Ask = {}): Promise<Answer | number | 'reset' | 'closed'> {
  expectConnection()
  const socket = connect()
  let text = ''
  let wasReset = false
  socket.on('error', () => { wasReset = true }).on('data', (part: Buffer) => { text += part.toString() })
  const closed = once(socket, 'close').catch(() => {})
  const request = Buffer.from([`GET ${path} HTTP/1.1`, 'Host: localhost', 'Connection: close', ...lines, '', ''].join('\r\n'))
  if (way === undefined) {
    socket.write(Buffer.concat([header, request]))
  } else {
    await once(socket, 'connect')
    socket.setNoDelay(true)
    await send(socket, way, header, request)
  }
  await closed
  const status = /^HTTP\/1\.1 (\d+)/.exec(text)?.[1]
  if (status === undefined) return wasReset ? 'reset' : 'closed'
  return status === '200' ? JSON.parse(text.slice(text.indexOf('\r\n\r\n') + 4)) : Number(status)
}
