import type { AddressInfo, Socket } from 'node:net'
import fastify from 'fastify'
import fastifyRealIp = require('fastify-real-ip')
import { fdOf, listeningFdOf } from '../lib/node/sockets'
import { loadLibc } from '../lib/kernel/libc'
import { createEndpoint } from '../lib/kernel/sockaddr'
import { SavedSyn } from '../lib/sources/saved-syn'
import { toaPresets } from '../lib/options/toa'
import { Senders } from '../lib/sources/choose'
import { pluginOf } from './aside'
import { answer } from './child'
import { takeTurns } from './turns'

// Like read-server.js, for the cost of a policy: node policy-server.js HOST IN_A_ROW CLIENT_ADDRESS

/** In microseconds. */
export interface Times {
  readonly nothing: number
  readonly failing: number
  readonly failingAgain: number
  readonly without: number
  readonly withoutAgain: number
  readonly policy: number
  readonly savedSyn: number
  /** The system call for it alone */
  readonly call: number
  /** of 1348 */
  readonly errno: number
  /** The answer for a connection under the policy */
  readonly trust: string
  /** The result of parsing the SYN; '' if it has TOA */
  readonly found: string
}

async function main (host: string, inARow: number, client: string): Promise<void> {
  const libc = loadLibc()
  if (typeof libc === 'string') throw new Error(libc)
  const asides = [fastify(), fastify()] as const
  const [plain, listed] = asides
  await plain.register(fastifyRealIp)
  await listed.register(fastifyRealIp, { trustedPeers: [client] })
  for (const aside of asides) await aside.ready()
  const [without, policy] = [pluginOf(plain.server), pluginOf(listed.server)]
  const app = fastify()
  app.get('/', (_request, reply) => { reply.send('127.0.0.1') })
  await app.listen({ port: 0, host })
  const senders = new Senders(libc, console.error)
  senders.arm(listeningFdOf(app.server))
  // The kernel lab appends TOA to the other options.
  const formats = toaPresets.alibaba.formats.map((format) => ({ ...format, position: 'last' as const }))
  const source = new SavedSyn(senders.syn, formats)
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
      found = senders.syn.read(fd, sender) ? source.read(fd, endpoint) : 'no-saved-syn'
    }
  }, inARow, fdOf, (thing, socket) => {
    if (thing === policy) trust = listed.realIp.lookup(socket).trust
  })

  answer({
    port: () => (app.server.address() as AddressInfo).port,
    times: (): Times => ({ ...times(), errno, trust, found: found ?? '' })
  })
}

main(process.argv[2] as string, Number(process.argv[3]), process.argv[4] as string)
