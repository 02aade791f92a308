import type { AddressInfo, Socket } from 'node:net'
import fastify from 'fastify'
import fastifyRealIp = require('fastify-real-ip')
import { fdOf } from '../lib/node/sockets'
import { loadLibc } from '../lib/kernel/libc'
import { createEndpoint } from '../lib/kernel/sockaddr'
import { SavedSyn } from '../lib/sources/saved-syn'
import { toaPresets } from '../lib/options/toa'
import { TransportPeers } from '../lib/kernel/peer-search'
import { answer } from './child'
import { takeTurns } from './turns'

// As read-server.js, for what a policy adds: node policy-server.js HOST IN_A_ROW CLIENT'S_ADDRESS

/** In microseconds. */
export interface Times {
  readonly nothing: number
  readonly failing: number
  readonly failingAgain: number
  readonly without: number
  readonly withoutAgain: number
  readonly policy: number
  readonly savedSyn: number
  /** the system call for it alone */
  readonly call: number
  /** of 1348 */
  readonly errno: number
  /** what the plugin said of a connection under the policy */
  readonly trust: string
  /** what the walk of a SYN found: '' where there was TOA */
  readonly found: string
}

async function main (host: string, inARow: number, client: string): Promise<void> {
  const libc = loadLibc()
  if (typeof libc === 'string') throw new Error(libc)
  const plain = fastify()
  await plain.register(fastifyRealIp)
  await plain.ready()
  const app = fastify()
  await app.register(fastifyRealIp, { trustedPeers: [client] })
  app.get('/', (_request, reply) => { reply.send('127.0.0.1') })
  // So that its listening socket keeps the SYNs.
  await app.listen({ port: 0, host })

  const [without, policy] = [plain, app].map(({ server }) => {
    // The plugin's own listener stands before all others.
    const listener = server.listeners('connection')[0] as (socket: Socket) => void
    server.removeListener('connection', listener)
    return listener
  }) as [(socket: Socket) => void, (socket: Socket) => void]
  const peers = new TransportPeers(libc)
  // The kernel lab stamps behind the other options.
  const formats = toaPresets.alibaba.formats.map((format) => ({ ...format, position: 'last' as const }))
  const source = new SavedSyn(peers.syn, formats)
  const sender = createEndpoint()
  const endpoint = createEndpoint()

  let errno = 0
  let trust = ''
  let found: string | undefined
  const fail = (_socket: Socket, fd: number) => { errno = libc.getsockopt(fd, 0, 1348) }
  const times = takeTurns(app.server, {
    nothing () {},
    failing: fail,
    failingAgain: fail,
    without,
    withoutAgain: without,
    policy,
    call (_socket, fd) { libc.readSavedSyn(fd) },
    savedSyn (_socket, fd) {
      found = peers.readSavedSyn(fd, sender) ? source.read(fd, endpoint) : 'no-saved-syn'
    }
  }, inARow, fdOf, (thing, socket) => {
    if (thing === policy) trust = app.realIp.lookup(socket).trust
  })

  answer({
    port: () => (app.server.address() as AddressInfo).port,
    times: (): Times => ({ ...times(), errno, trust, found: found ?? '' })
  })
}

main(process.argv[2] as string, Number(process.argv[3]), process.argv[4] as string)
