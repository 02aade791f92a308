import type { Socket } from 'node:net'
import { constants } from 'node:os'
import type { ProxyFaultReason } from '../../types'
import { compileRanges, type Ranges } from '../address/ranges'
import type { Endpoint } from '../kernel/sockaddr'
import type { Libc } from '../kernel/libc'
import { startReading } from '../node/sockets'
import type { ProxyProtocolOptions } from '../options/trust'
import { decodeProxyHeader, type ProxyHeader } from '../sources/proxy-header'
import type { Judge } from '../trust/judge'
import type { Hold } from './hold'

const { EAGAIN } = constants.errno

/** A header, or its fault. */
export type HeaderOutcome = ProxyHeader | ProxyFaultReason

/** Decides from which peers a PROXY header is expected, by the current policy. */
export class HeaderPolicy {
  readonly timeout: number
  /** Called with the first bytes of each connection that must begin with a header, complete or invalid. */
  look: ((socket: object, bytes: Uint8Array) => void) | undefined
  readonly #judge: Judge
  readonly #from: { readonly ranges: Ranges, readonly unix: boolean } | undefined

  constructor ({ from, timeout }: ProxyProtocolOptions, judge: Judge) {
    this.timeout = timeout
    this.#judge = judge
    this.#from = from && { ranges: compileRanges(from.addresses, 'proxyProtocol.from'), unix: from.unix }
  }

  /** The bytes of other peers are not read. `peer`: `undefined` if the sender is unknown. */
  expects (peer: Endpoint | undefined, isUnix: boolean): boolean {
    const from = this.#from
    const isNamed = from === undefined || (isUnix ? from.unix : peer !== undefined && from.ranges.includes(peer))
    return isNamed && this.#judge.trusts(peer, isUnix)
  }
}

/**
 * Reads the header if it is complete, and discards exactly its bytes from the connection, which Node.js has not read
 * yet. Returns `undefined` if it is incomplete.
 */
export function takeHeader (libc: Libc, fd: number, look?: (bytes: Uint8Array) => void): HeaderOutcome | undefined {
  const length = libc.peek(fd)
  if (length === -EAGAIN) return undefined
  const decoded = length <= 0 ? 'proxy-cut-short' : decodeProxyHeader(libc.peeked, length)
  if (decoded === 'more') return undefined
  look?.(libc.peeked.subarray(0, Math.max(length, 0)))
  if (typeof decoded === 'string') return decoded
  if ('reason' in decoded) return decoded.reason
  return libc.drop(fd, decoded.length) === decoded.length ? decoded : 'proxy-cut-short'
}

const ignore = (): void => {}

/**
 * Holds a connection until its header is complete, reading from the socket's stream. `done` is called once, in the
 * connection's async context, with all bytes read, header included.
 *
 * A timer runs before bytes that arrived in the meantime are read: they get one more turn of the event loop.
 */
export function awaitHeader (
  socket: Socket, hold: Hold, milliseconds: number, done: (outcome: HeaderOutcome, read: Buffer) => void
): void {
  let read: Buffer = Buffer.alloc(0)
  let isOver = false
  const held = hold.take(socket, milliseconds, (why) => {
    setImmediate(() => { end(`proxy-${why}`) })
  })
  if (held === undefined) return

  function end (outcome: HeaderOutcome): void {
    if (isOver) return
    isOver = true
    socket.off('readable', onReadable).off('data', onData).off('end', onEnd).off('close', onEnd).off('error', ignore)
    held?.release(() => {})
    done(outcome, read)
  }

  function onReadable (): void {
    while (!isOver && socket.read() !== null);
  }

  // Code that has read the first bytes may also emit 'data' itself.
  function onData (chunk: Buffer): void {
    read = read.length === 0 ? chunk : Buffer.concat([read, chunk])
    const decoded = decodeProxyHeader(read, read.length)
    if (decoded !== 'more') end('reason' in decoded ? decoded.reason : decoded)
  }

  function onEnd (): void {
    end('proxy-cut-short')
  }

  // Without an 'error' listener a reset would end the process; 'close' follows.
  socket.on('readable', onReadable).on('data', onData).once('end', onEnd).once('close', onEnd).on('error', ignore)
  startReading(socket)
  // If 'readable' had a listener before, it is not emitted for bytes that the stream already contains.
  if (socket.readableLength > 0) process.nextTick(onReadable)
}
