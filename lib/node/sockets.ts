import type { Attempt, Reason } from '../../types'
import { canonicalAddress } from '../address/address'
import { fallback, type Fallback } from '../trust/evidence'

// What Node.js gives no public name for. No other file touches these.
interface Internals {
  readonly _handle?: { readonly fd?: unknown, readonly getpeername?: unknown } | null
  readonly _parent?: object | null
}

interface Peer {
  readonly remoteAddress?: unknown
  readonly remotePort?: unknown
}

/** The file descriptor of an open TCP connection, or -1 where there is none. */
export function fdOf (socket: object): number {
  const handle = (socket as Internals)._handle
  // A pipe's handle has a descriptor too, but no peer name.
  return typeof handle?.getpeername === 'function' && typeof handle.fd === 'number' ? handle.fd : -1
}

/** The socket that the server accepted: itself, or the one that a TLS socket wraps. */
export function acceptedSocket (socket: unknown): unknown {
  return (socket as Internals | null | undefined)?._parent ?? socket
}

/**
 * The accepted socket of an HTTP/2 session; undefined where the session is already dead. `session.socket` is a proxy,
 * another object than the socket, so never a key; a method bound by it gives the socket itself.
 */
export function socketOfSession (session: { readonly socket: object }): object | undefined {
  try {
    return acceptedSocket(session.socket.valueOf()) as object
  } catch {
    return undefined
  }
}

/** The socket's own remote address, as Node.js gives it now, and never a throw. */
export function readPeer (socket: unknown, reason: Reason, attempts?: ReadonlyArray<Attempt>): Fallback {
  let address: string | undefined
  let port: unknown
  try {
    const peer = socket as Peer
    address = canonicalAddress(peer.remoteAddress)
    port = peer.remotePort
  } catch {
    // No object, or the proxy of a dead HTTP/2 session.
  }
  return fallback(address, port, reason, attempts)
}

/** Ends a connection at once, with a TCP reset where its kind has one. */
export function reset (socket: object): void {
  const { resetAndDestroy, destroy } = socket as { resetAndDestroy?: () => void, destroy?: () => void }
  try {
    (resetAndDestroy ?? destroy)?.call(socket)
  } catch {
    // A pipe, or TLS that was handed to an HTTP server.
    destroy?.call(socket)
  }
}

/** The descriptor of a listening server; -1 where it has none, as in a cluster worker whose primary listens. */
export function listeningFdOf (server: object): number {
  const fd = (server as Internals)._handle?.fd
  return typeof fd === 'number' ? fd : -1
}
