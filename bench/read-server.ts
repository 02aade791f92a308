import type { AddressInfo, Socket } from 'node:net'
import fastify, { type FastifyInstance } from 'fastify'
import fastifyRealIp = require('fastify-real-ip')
import { formatIPv4 } from '../lib/address/address'
import { fdOf } from '../lib/node/sockets'
import { loadLibc } from '../lib/kernel/libc'
import { word } from '../lib/kernel/sockaddr'
import { pluginOf } from './aside'
import { answer } from './child'
import { takeTurns } from './turns'

// A Fastify server that times one variant in some 'connection' events, another in the next: node read-server.js HOST
// IN_A_ROW

/** In microseconds. `nothing` is the cost of the clock, already subtracted from the others. */
export interface Times {
  readonly nothing: number
  readonly remoteAddress: number
  readonly control: number
  readonly read: number
  readonly readWithText: number
  /** getsockopt 1348 only */
  readonly call: number
  /** The minimum that remembers a connection: the system call, an object, WeakMap.set(), text; IPv4 only */
  readonly least: number
  /** The source of the plugin's answers */
  readonly source: string
}

type Early = new (raw: { readonly socket: Socket }) => { readonly realIp: string | undefined }
const seen: { address?: string | undefined, errno?: number } = {}

class Least {
  #text: string | undefined

  constructor (readonly w3: number) {}

  get address (): string { return this.#text ??= formatIPv4(this.w3) }
}

const remembered = new WeakMap<Socket, Least>()

async function main (host: string, inARow: number): Promise<void> {
  const libc = loadLibc()
  if (typeof libc === 'string') throw new Error(libc)
  const aside = fastify()
  await aside.register(fastifyRealIp)
  const EarlyRequest = await earlyRequest(aside)
  const plugin = pluginOf(aside.server)
  const app = fastify()
  app.get('/', (_request, reply) => { reply.send('127.0.0.1') })
  await app.listen({ port: 0, host })

  let source = ''
  const times = takeTurns(app.server, {
    nothing () {},
    remoteAddress (socket) { seen.address = socket.remoteAddress },
    control (socket) { seen.address = socket.remoteAddress },
    least (socket) {
      const fd = fdOf(socket)
      if ((source === 'vtoa' ? libc.getsockopt(fd, 0, 1348) : libc.getpeername(fd)) !== 0) return
      remembered.set(socket, new Least(word(libc.bytes, 4)))
      seen.address = remembered.get(socket)?.address
    },
    call (socket) { seen.errno = libc.getsockopt(fdOf(socket), 0, 1348) },
    read: plugin,
    readWithText (socket, request: InstanceType<Early>) {
      plugin(socket)
      seen.address = request.realIp
    }
  }, inARow, (socket) => new EarlyRequest({ socket }), (thing, socket) => {
    if (thing === plugin) source = aside.realIp.lookup(socket).source
  })

  answer({
    port: () => (app.server.address() as AddressInfo).port,
    times: (): Times => ({ ...times(), source })
  })
}

/** The part of a Fastify request that `request.realIp` uses: in a 'connection' event there is no request yet. */
async function earlyRequest (app: FastifyInstance): Promise<Early> {
  class EarlyRequest {
    constructor (readonly raw: object) {}
  }
  app.get('/early', (request, reply) => {
    Object.setPrototypeOf(EarlyRequest.prototype, Object.getPrototypeOf(request))
    reply.send()
  })
  await app.inject('/early')
  return EarlyRequest as unknown as Early
}

main(process.argv[2] as string, Number(process.argv[3]))
