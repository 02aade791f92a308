// Servers of the soak, in a process of their own: server.js PLACE CGROUP. The clients check; what is done here is to answer, to keep and to count.

import { tracingChannel } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { readdirSync } from 'node:fs'
import type { Server, Socket } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import realIp, { type Connection, type RealAddress } from 'fastify-real-ip'
import { answer } from '../../bench/child'
import { attach, detach } from '../../lib/attach/companion'
import { documentFormats } from '../../lib/attach/config'
import { type Bpf, openBpf } from '../../lib/kernel/libc'
import { kinds, listen } from '../kinds'
import { apps, type App, attachedPeers, type attachments, headerPeers, type Holdings, hops, type Round, toaPeers } from './apps'
import { text } from './expect'

interface Accepted {
  readonly app: number
  readonly socket: Socket
  readonly fd: number
  /** of all connections, which it was */
  readonly nth: number
}

interface Kept {
  readonly id: number
  readonly request: FastifyRequest
  readonly of: Accepted
}

const [place, cgroup] = process.argv.slice(2) as [string, string]
/** by the app's index */
const running = new Map<number, FastifyInstance>()
const ofPlugin = new Set<unknown>()
const ofHandle = new WeakMap<object, Accepted>()
/** by descriptor, the connection that had it last */
const lastOn = new Map<number, number>()
const closing = new EventTarget()
let accepted: Accepted[] = []
let kept: Kept[] = []
let keptBefore: Kept[] = []
let connections = 0
let open = 0

const gc = globalThis.gc as () => void
const listening = tracingChannel('net.server.listen')

const written = ({ address, port, source, trust, reason }: RealAddress) => text({ address, port }, source, trust, reason)

async function serve ({ protocol, policy, proxy, forwarded, host }: App, index: number): Promise<number> {
  // Node.js keeps an HTTP/2 session for as long as its timeout would run, even when it has been destroyed.
  const app = kinds.find(({ name }) => name === protocol)!.create({ forceCloseConnections: true, http2SessionTimeout: 0 })
  // Nothing ends because this machine is busy.
  Object.assign(app.server, { headersTimeout: 0, requestTimeout: 0, keepAliveTimeout: 0 })
  const others = listenersOf(app.server)
  // 'reject' would reset what a short answer is found on.
  await app.register(realIp, {
    ...policy && { trustedPeers: [], invalid: 'ignore' as const },
    ...forwarded && { forwarded: { trust: hops } },
    ...proxy && { sources: ['proxy-protocol', 'vtoa', 'getpeername'] as const, trustedPeers: [...headerPeers, ...toaPeers], proxyProtocol: { from: headerPeers, timeout: 60_000 } }
  })
  for (const one of listenersOf(app.server)) if (!others.includes(one)) ofPlugin.add(one)
  app.server.on('connection', (socket: Socket & { _handle: { fd: number } | null }) => {
    const handle = socket._handle
    const connection = { app: index, socket, fd: handle?.fd ?? -1, nth: ++connections }
    if (handle !== null) ofHandle.set(handle, connection)
    lastOn.set(connection.fd, connection.nth)
    accepted.push(connection)
    open++
    socket.once('close', () => {
      open--
      closing.dispatchEvent(new Event('close'))
    })
  })
  app.get('/whoami', ({ realAddress }) => JSON.stringify(written(realAddress)))
  app.get('/keep/:id', (request) => {
    keep(request)
    return JSON.stringify(written(request.realAddress))
  })
  // Nothing asks while the client is there.
  app.get('/hang/:id', (request, reply) => {
    keep(request)
    reply.hijack()
  })
  running.set(index, app)
  return await listen(app, { host })
}

/** Together with the connection that it came on. */
function keep (request: FastifyRequest): void {
  const { raw } = request as any
  const socket = raw.stream?.session?.socket ?? raw.socket
  const of = ofHandle.get((socket._parent ?? socket)._handle)
  if (of !== undefined) kept.push({ id: Number((request.params as { id: string }).id), request, of })
}

const isReused = ({ fd, nth }: Accepted): boolean => lastOn.get(fd) !== nth

function endRound (): Round {
  const sockets: string[][] = apps.map(() => [])
  for (const { app, socket } of accepted) sockets[app]!.push(written(running.get(app)!.realIp.lookup(socket)))
  const requests = keptBefore.map(({ id, request, of }) => {
    const raw = request.raw as any
    const answers = [request, raw, raw.stream ?? raw.socket].map((object: Connection) => written(running.get(of.app)!.realIp.lookup(object)))
    return { id, answers: answers as [string, string, string] }
  })
  const reused = accepted.filter(isReused).length + keptBefore.filter(({ of }) => isReused(of)).length
  accepted = []
  keptBefore = kept
  kept = []
  return { sockets, requests, reused }
}

async function hold (): Promise<Holdings> {
  while (open > 0) await once(closing, 'close')
  for (let turn = 0; turn < 3; turn++) {
    await setImmediate()
    gc()
  }
  const { heapUsed, external, rss } = process.memoryUsage()
  return {
    heap: heapUsed,
    external,
    rss,
    fds: readdirSync('/proc/self/fd').length,
    listeners: [...running.values()].reduce((sum, { server }) => sum + listenersOf(server).filter((one) => ofPlugin.has(one)).length, 0) +
      process.eventNames().reduce((sum, name) => sum + process.listenerCount(name as string), 0),
    subscribed: listening.asyncEnd.hasSubscribers,
    accepted: connections,
    counted: [...running.values()].reduce((sum, app) => sum + app.realIp.stats().connections, 0),
    rejected: [...running.values()].reduce((sum, app) => sum + app.realIp.stats().rejected, 0)
  }
}

const listenersOf = (server: Server) => ['connection', 'session', 'stream'].flatMap((name) => server.listeners(name))

const bpf = openBpf() as Bpf
const bpffs = '/sys/fs/bpf'

answer({
  hold,
  endRound,
  /** by the app's index, the ports */
  async start () {
    const ports: Array<[number, number]> = []
    for (const [index, app] of apps.entries()) {
      if (app.place === place) ports.push([index, await serve(app, index)])
    }
    return ports
  },
  trust (list: string[]) {
    for (const [index, app] of running) {
      const { policy, proxy } = apps[index]!
      if (policy && !proxy) app.realIp.setTrustedPeers(list)
    }
  },
  attach (what: typeof attachments[number]) {
    if (what === 'off') return detach(bpf, { cgroup }, bpffs)
    const trustedPeers = what.endsWith(' of some') ? attachedPeers : 'any'
    attach(bpf, { cgroup, bpffs, version: 'soak', verbose: false, trustedPeers, formats: documentFormats, getpeername: what.startsWith('both') })
  },
  stall (milliseconds: number) {
    const end = performance.now() + milliseconds
    while (performance.now() < end);
  },
  async close () {
    await Promise.all([...running.values()].map((app) => app.close()))
  }
})
