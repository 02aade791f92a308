import { channel } from 'node:diagnostics_channel'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { Duplex } from 'node:stream'
import { setImmediate } from 'node:timers/promises'

/**
 * How the bytes of a header reach the server:
 * - together with the client's first bytes, before the connection is accepted;
 * - the same, after the connection was accepted;
 * - in two parts, the second after the server has read the first, together with the client's first bytes;
 * - each byte after the server has read the one before.
 */
export const ways = ['at once', 'later', 'split in two', 'byte by byte'] as const
export type Way = typeof ways[number]

// Tests open one connection at a time.
let accepted: Socket | undefined
channel('net.server.socket').subscribe((message) => { accepted = (message as { socket: Socket }).socket })

/** Resolves when the server has accepted the connection and read so many bytes, or when one of both ends is gone. */
export async function untilRead (client: Socket, bytes: number): Promise<void> {
  while (!client.destroyed && (accepted === undefined || (accepted.bytesRead < bytes && !accepted.destroyed))) await setImmediate()
}

const ignore = (): void => {}

/** Writes a header and what follows it. The connection may be reset meanwhile. */
export async function send (client: Socket, way: Way, header: Buffer, rest: Buffer): Promise<void> {
  const all = Buffer.concat([header, rest])
  const cuts = way === 'split in two' ? [Math.ceil(header.length / 2)] : way === 'byte by byte' ? Array.from(header.keys()).slice(1) : []
  if (way !== 'at once') await untilRead(client, 0)
  let sent = 0
  for (const cut of cuts) {
    if (client.destroyed) return
    client.write(all.subarray(sent, cut), ignore)
    await untilRead(client, sent = cut)
  }
  if (!client.destroyed) client.write(all.subarray(sent), ignore)
}

/** Forgets the last connection, so that what the server reads is of the next one. */
export function expectConnection (): void {
  accepted = undefined
}

/** The client's end of a connection that begins with a header: what is written first goes behind it. */
export class Wire extends Duplex {
  readonly #socket: Socket
  readonly #begin: (first: Buffer) => Promise<void>
  #hasBegun = false

  constructor (socket: Socket, begin: (first: Buffer) => Promise<void>) {
    super()
    // Whoever waits for something hears of it too.
    this.on('error', ignore)
    this.#socket = socket
    this.#begin = begin
    socket.on('data', (part: Buffer) => { if (!this.push(part)) socket.pause() })
    socket.on('end', () => { this.push(null) })
    socket.on('error', (error) => { this.destroy(error) })
    socket.on('close', () => { this.destroy() })
  }

  override _write (part: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    if (this.#hasBegun) {
      this.#socket.write(part, done)
      return
    }
    this.#hasBegun = true
    this.#begin(part).then(() => { done() }, done)
  }

  override _read (): void {
    this.#socket.resume()
  }

  override _final (done: () => void): void {
    this.#socket.end()
    done()
  }

  override _destroy (error: Error | null, done: (error: Error | null) => void): void {
    this.#socket.destroy()
    done(error)
  }
}

/** Opens a connection and has the header written before the first bytes of whoever uses the wire. */
export async function openWire (connect: () => Socket, way: Way, header: Buffer): Promise<{ socket: Socket, wire: Wire }> {
  expectConnection()
  const socket = connect()
  await once(socket, 'connect')
  socket.setNoDelay(true)
  return { socket, wire: new Wire(socket, (first) => send(socket, way, header, first)) }
}

export interface Ended {
  /** Of the connection's error; undefined: it was closed without one. */
  readonly code: string | undefined
  readonly received: string
}

/** Sends a header and what follows, and waits for the end of the connection. */
export async function sendAndWait (connect: () => Socket, way: Way, header: Buffer, rest: Buffer): Promise<Ended> {
  expectConnection()
  const socket = connect()
  let code: string | undefined
  let received = ''
  socket.on('error', (error: NodeJS.ErrnoException) => { code = error.code })
  socket.on('data', (part: Buffer) => { received += part.toString('latin1') })
  const closed = new Promise((resolve) => { socket.once('close', resolve) })
  await Promise.race([closed, once(socket, 'connect').catch(ignore)])
  socket.setNoDelay(true)
  await send(socket, way, header, rest)
  await closed
  return { code, received }
}
