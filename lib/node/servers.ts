import { tracingChannel } from 'node:diagnostics_channel'
import type { Server } from 'node:net'

/** Handlers for the events of one application's servers. */
export interface ServerEvents {
  /**
   * Called for a new connection before any listener. True: emit the event to the listeners. False: the connection was
   * reset, or is held until `handOver` emits the event.
   */
  accept (socket: object, server: Server, handOver: (socket: object) => void): boolean
  session?: (session: { readonly socket: object }) => void
  stream?: (stream: { readonly session?: object | undefined }) => void
  /**
   * Called for each server that begins to listen, before it can accept. If it returns an error, the server is closed
   * and `listen()` rejects.
   */
  prepare (server: Server): Error | undefined
  /** The error for a server that listens without having been prepared, if that is an error. */
  unprepared?: (server: Server) => Error | undefined
}

type Emit = (this: unknown, ...args: unknown[]) => boolean
type RequestListener = (...args: unknown[]) => void

/** Whether this version of Node.js publishes each server that begins to listen. */
export function tellsOfServers (version: string): boolean {
  const [major, minor] = version.split('.').map(Number) as [number, number]
  return major === 20 ? minor >= 16 : major > 22 || (major === 22 && minor >= 3)
}

// Published before the server can accept connections.
const listening = tracingChannel('net.server.listen')
// Weak keys: an application may never be closed.
const followers = new WeakMap<RequestListener | Server, (server: Server) => void>()
let count = 0

function onServerListening (message: object): void {
  const { server } = message as { server: Server }
  const follower = followers.get(server) ??
    server.listeners('request').map((listener) => followers.get(listener as RequestListener)).find((found) => found)
  follower?.(server)
}

const subscribers = { asyncEnd: onServerListening } as Parameters<typeof listening.subscribe>[0]

/**
 * Follows `main` and each server that Fastify opens beside it: `listen({ host: 'localhost' })` opens one for each
 * further address, with the same request listener. Returns a function that undoes it.
 *
 * `emit` of each server is replaced, so that no listener runs first.
 */
export function followServers (main: Server, events: ServerEvents): () => void {
  const followed = new Map<Server, () => void>()
  const prepared = new WeakSet<Server>()

  function attach (server: Server): void {
    if (!followed.has(server)) {
      const whyUnprepared = () => prepared.has(server) ? undefined : events.unprepared?.(server)
      followed.set(server, intercept(server, events, whyUnprepared))
    }
  }

  function follow (server: Server): void {
    attach(server)
    const error = events.prepare(server)
    if (error === undefined) prepared.add(server)
    else fail(server, error)
  }

  attach(main)
  if (main.listening) prepared.add(main)
  const keys = [main, ...main.listeners('request') as RequestListener[]]
  if (count++ === 0) listening.subscribe(subscribers)
  for (const key of keys) followers.set(key, follow)

  return () => {
    for (const undo of followed.values()) undo()
    followed.clear()
    for (const key of keys) followers.delete(key)
    if (--count === 0) listening.unsubscribe(subscribers)
  }
}

/** Makes `listen()` reject: Fastify waits for the first of 'listening' and 'error'. */
function fail (server: Server, error: Error): void {
  server.close()
  server.emit('error', error)
}

/** Replaces a server's `emit`. Returns a function that restores it. */
function intercept (server: Server, events: ServerEvents, whyUnprepared: () => Error | undefined): () => void {
  const before = Object.getOwnPropertyDescriptor(server, 'emit')
  let active = true
  // Looked up for each event: instrumentation may patch the prototype at any time.
  const next = (): Emit => (before?.value ?? (Object.getPrototypeOf(server) as { emit: Emit }).emit) as Emit
  const handOver = (socket: object): void => { next().call(server, 'connection', socket) }

  function emit (this: unknown, name: unknown, a: unknown, b: unknown, c: unknown): boolean {
    if (active) {
      switch (name) {
        case 'connection':
          if (!events.accept(a as object, server, handOver)) return true
          break
        case 'session':
          events.session?.(a as { readonly socket: object })
          break
        case 'stream':
          events.stream?.(a as object)
          break
        case 'listening': {
          const error = whyUnprepared()
          if (error !== undefined) {
            fail(server, error)
            return true
          }
          break
        }
      }
    }
    const passOn = next()
    // Rest arguments would cost each event six times as much.
    switch (arguments.length) {
      case 1: return passOn.call(this, name)
      case 2: return passOn.call(this, name, a)
      case 3: return passOn.call(this, name, a, b)
      case 4: return passOn.call(this, name, a, b, c)
      default: return passOn.apply(this, arguments as unknown as unknown[])
    }
  }

  Object.defineProperty(server, 'emit', { value: emit, writable: true, configurable: true, enumerable: false })
  return () => {
    active = false
    // Another patch may wrap this one and call it.
    if ((server.emit as unknown) !== emit) return
    if (before === undefined) delete (server as { emit?: unknown }).emit
    else Object.defineProperty(server, 'emit', before)
  }
}
