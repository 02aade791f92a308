// A worker to which the primary passes connections, each with the bytes that it has read of it, as socket.io-sticky does.
import type { Socket } from 'node:net'
import Fastify from 'fastify'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { type Found, PeerSearch } from '../../lib/kernel/peer-search'
import { cert, key } from '../kinds'

export interface Setting {
  readonly options: FastifyRealIpOptions
  readonly https?: boolean
  /** Whether senders are found only when the primary says so. */
  readonly holds?: boolean
}

/** From the primary: a connection's first bytes, later ones of the connection passed last, or a word. */
export type Order = { readonly first: string } | { readonly next: string } | 'release' | 'stats' | 'end'

interface Handle { onread (bytes: Buffer): void }

const handleOf = (socket: Socket) => (socket as unknown as { readonly _handle: Handle | null })._handle as Handle

async function serve ({ options, https = false, holds = false }: Setting): Promise<void> {
  const app = Fastify({ forceCloseConnections: true, ...(https && { https: { key, cert } }) })
  await app.register(realIp, options)
  app.get('/', (request) => request.realAddress)
  app.post('/', { bodyLimit: 2 ** 25 }, (request) => ({ ...request.realAddress, length: (request.body as string).length }))
  await app.ready()
  const { ask } = PeerSearch.prototype
  const searches: Array<() => void> = []
  if (holds) {
    PeerSearch.prototype.ask = function (fd: number, found: Found) { searches.push(() => { ask.call(this, fd, found) }) }
  }
  let last: Socket | undefined
  process.on('message', (order: Order, socket?: Socket) => {
    if (order === 'release') for (const search of searches.splice(0)) search()
    else if (order === 'stats') process.send?.(app.realIp.stats())
    else if (order === 'end') process.exit()
    else if ('next' in order) handleOf(last as Socket).onread(Buffer.from(order.next))
    else if (socket !== undefined) {
      last = socket
      app.server.emit('connection', socket)
      handleOf(socket).onread(Buffer.from(order.first))
      socket.resume()
      process.send?.('emitted')
    }
  })
  process.send?.('ready')
}

if (process.env.FASTIFY_REAL_IP_STICKY !== undefined) void serve(JSON.parse(process.env.FASTIFY_REAL_IP_STICKY))
