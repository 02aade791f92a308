import { tracingChannel } from 'node:diagnostics_channel'
import type { Server } from 'node:net'

export interface ServerListeners {
  connection: (socket: object) => void
  session: (session: { readonly socket: object }) => void
  stream: (stream: { readonly session?: object | undefined }) => void
}

/** Whether that version of Node.js publishes each server that begins to listen. */
export function tellsOfServers (version: string): boolean {
  const [major, minor] = version.split('.').map(Number) as [number, number]
  return major === 20 ? minor >= 16 : major > 22 || (major === 22 && minor >= 3)
}

// Before it can accept anything.
const listening = tracingChannel('net.server.listen')
type RequestListener = (...args: unknown[]) => void
// Weakly, for an application that is never closed.
const followed = new WeakMap<RequestListener | Server, (server: Server) => void>()
let followers = 0

function onServerListening (message: object): void {
  const { server } = message as { server: Server }
  const follower = followed.get(server) ??
    server.listeners('request').map((listener) => followed.get(listener as RequestListener)).find((found) => found)
  follower?.(server)
}

const subscribers = { asyncEnd: onServerListening } as Parameters<typeof listening.subscribe>[0]

/**
 * Puts the listeners before all others on `main` and on each server that Fastify opens beside it: for
 * `listen({ host: 'localhost' })` there is one for each further address, with the same request listener.
 * `prepare` is called with each server that begins to listen, before it can accept anything; where it returns an error,
 * the server is closed and `listen()` rejects with it. Returns what undoes it all.
 */
export function followServers (
  main: Server, listeners: ServerListeners, prepare: (server: Server) => Error | undefined
): () => void {
  const servers = new Set<Server>()
  const names = Object.keys(listeners) as Array<keyof ServerListeners>

  function attach (server: Server): void {
    if (servers.has(server)) return
    servers.add(server)
    // HTTP/1 servers emit neither 'session' nor 'stream'.
    for (const name of names) server.prependListener(name, listeners[name])
  }

  function follow (server: Server): void {
    attach(server)
    const error = prepare(server)
    if (error === undefined) return
    server.close()
    server.emit('error', error)
  }

  attach(main)
  const keys = [main, main.listeners('request')[0] as RequestListener | undefined].filter((key) => key !== undefined)
  if (followers++ === 0) listening.subscribe(subscribers)
  for (const key of keys) followed.set(key, follow)

  return () => {
    for (const server of servers) {
      for (const name of names) server.removeListener(name, listeners[name])
    }
    servers.clear()
    for (const key of keys) followed.delete(key)
    if (--followers === 0) listening.unsubscribe(subscribers)
  }
}
