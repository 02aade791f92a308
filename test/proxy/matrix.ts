import { isDeepStrictEqual } from 'node:util'
import { type AddressInfo, connect, type Socket } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import realIp, { type FastifyRealIpOptions, type RealAddress } from 'fastify-real-ip'
import { type Libc, loadLibc } from '../../lib/kernel/libc'
import { setDeferAccept } from './defer-accept'
import { type Exchange, addRoutes, firstBytes } from './exchanges'
import { badHeaders, type BadHeader, type GoodHeader, goodHeaders } from './headers'
import { kinds, type Kind } from '../kinds'
import { openWire, sendAndWait, type Way } from './wire'

// Every header on real servers.

export interface Served {
  readonly app: FastifyInstance
  readonly kind: Kind['name']
  /** What the server emitted that is of a connection. */
  readonly events: string[]
  connect (): Socket
}

export interface Setting {
  readonly options?: Partial<FastifyRealIpOptions>
  readonly fastify?: object
  /** @default { host: '127.0.0.1', port: 0 } */
  readonly listen?: object
  readonly localAddress?: string
  readonly prepare?: (app: FastifyInstance) => unknown
}

export const PEER = '127.0.0.9'
// Where bytes are lost nobody answers.
const PATIENCE = 10_000
const emitted = ['connection', 'session', 'stream', 'secureConnection', 'request', 'upgrade', 'clientError', 'tlsClientError', 'error']

/** A server to which PEER sends headers. */
export async function serve (t: Test, name: Kind['name'], setting: Setting = {}): Promise<Served> {
  const { options = {}, fastify = {}, listen = { host: '127.0.0.1', port: 0 }, localAddress = PEER, prepare } = setting
  const app = kinds.find((kind) => kind.name === name)!.create({ forceCloseConnections: true, ...fastify })
  await app.register(realIp, { sources: ['proxy-protocol'], trustedPeers: [PEER], ...options })
  await addRoutes(app, name)
  await prepare?.(app)
  const events: string[] = []
  t.teardown(() => app.close())
  await app.listen(listen)
  for (const event of emitted) {
    // A listener of 'upgrade' takes the requests away from others.
    if (event !== 'upgrade' || app.server.listenerCount(event) > 0) app.server.on(event, () => { events.push(event) })
  }
  const address = app.server.address()
  const to = typeof address === 'string' ? { path: address } : { host: '127.0.0.1', port: address!.port, localAddress }
  return { app, kind: name, events, connect: () => connect(to) }
}

/** Connects to the server from this address. */
export const connectFrom = ({ app }: Served, localAddress: string) => () =>
  connect({ host: '127.0.0.1', port: (app.server.address() as AddressInfo).port, localAddress })

/** Descriptors whose bytes were looked at, or dropped. */
export function countLooks (t: Test): () => number {
  const libc = loadLibc() as Libc
  const peek = t.capture(libc, 'peek', libc.peek)
  const drop = t.capture(libc, 'drop', libc.drop)
  return () => peek().length + drop().length
}

/** The answer that a header must give; the peer's own port belongs to the connection. */
export function expected ({ version, source, destination, said }: GoodHeader, peer: { address: string | undefined, port: number | undefined }): object {
  const port = (given: number) => given === 0 ? undefined : given
  const family = (address: string) => address.includes(':') ? 'IPv6' : 'IPv4'
  const transportPeer = peer.address === undefined ? undefined : peer
  if (source === undefined || destination === undefined) {
    return {
      ...peer.address !== undefined && { ...peer, family: family(peer.address) },
      source: peer.address === undefined ? 'none' : 'transport-peer',
      trust: 'trusted',
      reason: 'proxy-local',
      transportPeer,
      proxyProtocol: { version, local: true, ...said },
      attempts: []
    }
  }
  return {
    address: source[0],
    port: port(source[1]),
    family: family(source[0]),
    source: 'proxy-protocol',
    trust: 'trusted',
    transportPeer,
    proxyProtocol: { version, local: false, destination: { address: destination[0], port: port(destination[1]) }, ...said },
    attempts: []
  }
}

const plain = (value: unknown): unknown => JSON.parse(JSON.stringify(value))

/** What is wrong, in a line each; nothing where all is right. */
export type Wrong = string[]

export async function tryGood ({ connect, app }: Served, exchange: Exchange, way: Way, header: GoodHeader, knowsPeer = true): Promise<Wrong> {
  setDeferAccept(app.server, way === 'at once')
  const { socket, wire } = await openWire(connect, way, header.bytes)
  const peer = knowsPeer ? { address: socket.localAddress, port: socket.localPort } : { address: undefined, port: undefined }
  const timer = setTimeout(() => { wire.destroy(new Error('no answer came')) }, PATIENCE)
  try {
    const answers = await exchange.run(wire)
    const right = plain(expected(header, peer))
    return answers.flatMap((answer: RealAddress) => isDeepStrictEqual(answer, right) ? [] : [`${header.name}: ${JSON.stringify(answer)}, not ${JSON.stringify(right)}`])
  } catch (error) {
    return [`${header.name}: ${String(error)}`]
  } finally {
    clearTimeout(timer)
    wire.destroy()
  }
}

/** A bad header: the connection is reset, nothing is parsed, and its reason is counted. */
export async function tryBad ({ app, events, connect, kind }: Served, way: Way, { name, bytes, reason }: BadHeader): Promise<Wrong> {
  setDeferAccept(app.server, way === 'at once')
  const before = app.realIp.stats()
  const from = events.length
  const { code, received } = await sendAndWait(connect, way, bytes, firstBytes(kind))
  const after = app.realIp.stats()
  const saw = {
    // A write may notice the reset first; a Unix-domain socket has none.
    reset: code === 'ECONNRESET' || code === 'EPIPE' || typeof app.server.address() === 'string',
    received,
    events: events.slice(from),
    counted: [after.connections - before.connections, after.rejected - before.rejected],
    reasons: Object.entries(after.reason).flatMap(([key, count]) => count === before.reason[key as typeof reason] ? [] : [key])
  }
  const right = { reset: true, received: '', events: [], counted: [1, 1], reasons: [reason] }
  return isDeepStrictEqual(saw, right) ? [] : [`${name}: ${code} ${JSON.stringify(saw)}`]
}

/** All headers, one way. */
export async function checkGood (t: Test, served: Served, exchange: Exchange, way: Way, knowsPeer = true): Promise<void> {
  const wrong: Wrong = []
  for (const header of goodHeaders) wrong.push(...await tryGood(served, exchange, way, header, knowsPeer))
  t.same(wrong, [], `${goodHeaders.length} good headers ${way}`)
}

export async function checkBad (t: Test, served: Served, way: Way): Promise<void> {
  const wrong: Wrong = []
  for (const header of badHeaders) wrong.push(...await tryBad(served, way, header))
  t.same(wrong, [], `${badHeaders.length} bad headers ${way}`)
}
