// What Node.js has no public name for. No other file touches these.
interface Handle {
  readonly fd?: unknown
  readonly getpeername?: unknown
  readonly getsockname?: unknown
  reading?: boolean
  readStop?: () => number
  readStart?: () => number
}

interface Internals {
  readonly _handle?: Handle | null
  readonly _parent?: object | null
}

/** The file descriptor of an open TCP connection, or -1 where there is none. */
export function fdOf (socket: object): number {
  const handle = (socket as Internals)._handle
  // The handle of a pipe has a descriptor too, but no peer name.
  return typeof handle?.getpeername === 'function' && typeof handle.fd === 'number' ? handle.fd : -1
}

/** The descriptor of an open Unix-domain connection, or -1 where there is none. */
export function pipeFdOf (socket: object): number {
  const handle = (socket as Internals)._handle
  return typeof handle?.fd === 'number' && typeof handle.getpeername !== 'function' ? handle.fd : -1
}

/** The socket that the server accepted: itself, or the one below a TLS socket. */
export function acceptedSocket (socket: unknown): unknown {
  return (socket as Internals | null | undefined)?._parent ?? socket
}

/**
 * The accepted socket of an HTTP/2 session; undefined where the session is already dead. `session.socket` is a proxy,
 * so never a key; a method that it binds gives the socket itself.
 */
export function socketOfSession (session: { readonly socket: object }): object | undefined {
  try {
    return acceptedSocket(session.socket.valueOf()) as object
  } catch {
    return undefined
  }
}

/** Remote address and port as Node.js gives them now; never throws. */
export function remoteOf (socket: unknown): { readonly address: unknown, readonly port: unknown } {
  try {
    const { remoteAddress, remotePort } = socket as { readonly remoteAddress?: unknown, readonly remotePort?: unknown }
    return { address: remoteAddress, port: remotePort }
  } catch {
    // No object, or the proxy of a dead HTTP/2 session.
    return { address: undefined, port: undefined }
  }
}

/**
 * Stops reading from a new connection: its bytes stay in the kernel, an end or a reset is noticed only later. False
 * where its kind cannot be stopped.
 */
export function stopReading (socket: object): boolean {
  const handle = (socket as Internals)._handle
  if (typeof handle?.readStop !== 'function' || typeof handle.readStart !== 'function') return false
  handle.reading = false
  return handle.readStop() === 0
}

/** Undoes stopReading(). */
export function startReading (socket: object): void {
  const handle = (socket as Internals)._handle
  if (typeof handle?.readStart !== 'function') return
  handle.reading = true
  handle.readStart()
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

/** Whether a server listens on a Unix-domain socket, by path or by descriptor. */
export function isUnixListener (server: object): boolean {
  const handle = (server as Internals)._handle
  return handle !== null && handle !== undefined && typeof handle.getsockname !== 'function'
}
