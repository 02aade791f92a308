import type { Socket } from 'node:net'

// Access to private fields of Node.js (_handle, _parent). No other file uses them.
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

/** The file descriptor of an open TCP connection, or -1. */
export function fdOf (socket: object): number {
  const handle = (socket as Internals)._handle
  // A pipe's handle has a descriptor too, but no getpeername().
  return typeof handle?.getpeername === 'function' && typeof handle.fd === 'number' ? handle.fd : -1
}

/** The descriptor of an open Unix-domain connection, or -1. */
export function pipeFdOf (socket: object): number {
  const handle = (socket as Internals)._handle
  return typeof handle?.fd === 'number' && typeof handle.getpeername !== 'function' ? handle.fd : -1
}

/** The socket that the server accepted: the socket itself, or the one below a TLS socket. */
export function acceptedSocket (socket: unknown): unknown {
  return (socket as Internals | null | undefined)?._parent ?? socket
}

/**
 * The accepted socket of an HTTP/2 session; `undefined` if the session is destroyed. `session.socket` is a proxy and
 * cannot serve as a key; one of its bound methods returns the socket itself.
 */
export function socketOfSession (session: { readonly socket: object }): object | undefined {
  try {
    return acceptedSocket(session.socket.valueOf()) as object
  } catch {
    return undefined
  }
}

/** The remote address and port that Node.js reports now. Never throws. */
export function remoteOf (socket: unknown): { readonly address: unknown, readonly port: unknown } {
  try {
    const { remoteAddress, remotePort } = socket as { readonly remoteAddress?: unknown, readonly remotePort?: unknown }
    return { address: remoteAddress, port: remotePort }
  } catch {
    // Not an object, or the proxy of a destroyed HTTP/2 session.
    return { address: undefined, port: undefined }
  }
}

/** Stops reading from a new connection: its data stays in the kernel, and EOF or a reset is noticed only later. */
export function stopReading (socket: object): void {
  const { _handle: handle } = socket as Internals
  if (handle) handle.reading = false
  handle?.readStop?.()
}

/** Resumes reading after stopReading(). */
export function startReading (socket: object): void {
  const { _handle: handle } = socket as Internals
  if (handle) handle.reading = true
  handle?.readStart?.()
}

const ignore = (): void => {}

// The number of bytes that all held connections of this process may keep together.
const KEPT_MAX = 64 * 1024 * 1024
let keptByAll = 0

/**
 * Keeps the bytes that other code gives to a held connection that it emitted: pushed into the stream, or emitted as
 * 'data'. The stream may also be resumed, as by socket.io-sticky. Calls `onTooMany` if all held connections together
 * keep more than 64 MiB. Returns a function that stops this and leaves all bytes in the stream.
 */
export function keepBytes (socket: Socket, onTooMany: () => void): () => void {
  const emitted: Buffer[] = []
  let length = 0
  let kept = 0
  const count = (bytes: number): void => {
    keptByAll += bytes - kept
    kept = bytes
    if (keptByAll > KEPT_MAX) onTooMany()
  }
  const onReadable = (): void => { count(length + socket.readableLength) }
  const onData = (bytes: Buffer): void => {
    emitted.push(bytes)
    length += bytes.length
    onReadable()
  }
  const onClose = (): void => { count(0) }
  // With a listener of 'readable', resume() drops nothing. Without one of 'error', a reset would end the process.
  socket.on('readable', onReadable).on('data', onData).on('error', ignore).once('close', onClose)
  return () => {
    socket.off('readable', onReadable).off('data', onData).off('close', onClose)
    count(0)
    if (socket.destroyed) return
    socket.off('error', ignore)
    if (emitted.length > 0) socket.unshift(Buffer.concat(emitted))
  }
}

/** Destroys a connection, with a TCP reset if possible. Never throws. */
export function reset (socket: object): void {
  for (const name of ['resetAndDestroy', 'destroy'] as const) {
    try {
      const end = (socket as Partial<Socket>)[name]
      if (end !== undefined) return void end.call(socket)
    } catch {
      // A pipe, or a TLS socket that was given to an HTTP server, cannot be reset.
    }
  }
}

/** Whether a server of this process accepted the connection. */
export function hasServer (socket: object): boolean {
  return (socket as { readonly server?: object } | null | undefined)?.server != null
}

/** The descriptor of a listening server; -1 if it has none, e.g. in a cluster worker whose primary listens. */
export function listeningFdOf (server: object): number {
  const fd = (server as Internals)._handle?.fd
  return typeof fd === 'number' ? fd : -1
}

/** Whether a server listens on a Unix-domain socket, by path or by descriptor. */
export function isUnixListener (server: object): boolean {
  const handle = (server as Internals)._handle
  return handle !== null && handle !== undefined && typeof handle.getsockname !== 'function'
}
