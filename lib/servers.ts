import { tracingChannel } from 'node:diagnostics_channel'
import type { Server } from 'node:net'

export interface ServerListeners {
  connection: (socket: object) => void
  session: (session: { readonly socket: object }) => void
  stream: (stream: { readonly session?: object | undefined }) => void
}

// Node.js publishes here each server that begins to listen, before it can accept anything.
const listening = tracingChannel('net.server.listen')
type RequestListener = (...args: unknown[]) => void
const followed = new Map<RequestListener, (server: Server) => void>()

function onServerListening (message: object): void {
  const { server } = message as { server: Server }
  for (const listener of server.listeners('request')) {
    followed.get(listener as RequestListener)?.(server)
  }
}

const subscribers = { asyncEnd: onServerListening } as Parameters<typeof listening.subscribe>[0]

/**
 * Puts the listeners before all others on `main` and on each server that Fastify opens beside it: for
 * `listen({ host: 'localhost' })` there is one for each further address, with the same request listener.
 * Returns what undoes it.
 */
export function followServers (main: Server, listeners: ServerListeners): () => void {
  const servers = new Set<Server>()
  const names = Object.keys(listeners) as Array<keyof ServerListeners>

  function attach (server: Server): void {
    if (servers.has(server)) return
    servers.add(server)
    // HTTP/1 servers emit neither 'session' nor 'stream'.
    for (const name of names) server.prependListener(name, listeners[name])
  }

  attach(main)
  const requestListener = main.listeners('request')[0] as RequestListener | undefined
  if (requestListener !== undefined) {
    if (followed.size === 0) listening.subscribe(subscribers)
    followed.set(requestListener, attach)
  }

  return () => {
    for (const server of servers) {
      for (const name of names) server.removeListener(name, listeners[name])
    }
    servers.clear()
    if (requestListener !== undefined && followed.delete(requestListener) && followed.size === 0) {
      listening.unsubscribe(subscribers)
    }
  }
}
