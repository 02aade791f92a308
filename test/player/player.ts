import { once } from 'node:events'
import { Duplex } from 'node:stream'
import { balancerInterface, serverInterface } from './namespace'
import {
  ACK, addressBytes, decodeSegment, encodeSegment, FIN, PSH, RST, SYN, type Headers, type ReceivedSegment
} from './packet'
import { openPacketSocket } from './packet-socket'
import { linuxOptions, linuxSynOptions, readOptions, type Option } from './tcp-options'

const ETHERNET_HEADER = 14
const ETH_P_IP = 0x0800
const ETH_P_IPV6 = 0x86dd

const WINDOW = 0xffff
// Leaves room in a frame for any options and extension headers.
const SEGMENT_MAX = 1200
const FIRST_PORT = 40_000
const LAST_PORT = 65_535
const RETRANSMISSION_TIMEOUT = 1000
const RETRANSMISSIONS_MAX = 5
const PATIENCE = 10_000
const NOTHING = Buffer.alloc(0)

/** How a segment arrives at the server. */
export interface Shape extends Omit<Headers, 'options'> {
  /** The options as they are; or what a balancer makes of the client's own, before or after the server's first byte. */
  readonly options?: readonly Option[] | ((own: readonly Option[], answered: boolean) => readonly Option[]) | undefined
}

export interface SynShape extends Shape {
  readonly payload?: Uint8Array | undefined
}

export interface Route {
  /** The transport peer. */
  readonly source: string
  /** The next one if none is given. */
  readonly sourcePort?: number | undefined
  readonly destination: string
  readonly port: number
}

export interface Handshake {
  /** The options that the client itself writes on its SYN; Linux's if none are given. */
  readonly client?: readonly Option[] | undefined
  /** With `retransmit`, a second SYN follows before the server's answer to the first is looked at. */
  readonly syn?: SynShape & { readonly retransmit?: Shape | undefined } | undefined
  /** The last segment of the handshake. With `skip` there is none: the first data completes it. */
  readonly ack?: Shape & { readonly skip?: boolean | undefined } | undefined
  readonly data?: Shape | undefined
}

export interface ConnectOptions extends Route, Handshake {
  /** Gives up on the handshake; after ten seconds if none is given. */
  readonly signal?: AbortSignal | undefined
}

export interface SynOptions extends Route, Pick<Handshake, 'client'> {
  readonly syn?: SynShape | undefined
}

export interface HttpResponse {
  readonly status: number
  /** By lower-case name; of equal names the last. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

/** Whoever is at the other end of the veth pair: balancers, clients, attackers. */
export interface Player {
  /** Resolves when the server has answered the SYN, and the last segment of the handshake is sent. */
  connect (options: ConnectOptions): Promise<Connection>
  /** Sends one SYN and forgets it: what the server answers is lost. Gives the IP packet that was sent. */
  syn (options: SynOptions): Buffer
  /** Resets what is still open. */
  close (): void
}

export function openPlayer (): Player {
  const connections = new Map<string, Connection>()
  const mac = (text: string) => Buffer.from(text.replaceAll(':', ''), 'hex')
  const macs = Buffer.concat([mac(serverInterface.mac), mac(balancerInterface.mac)])
  let lastPort = FIRST_PORT - 1

  const socket = openPacketSocket(balancerInterface.name, (frame) => {
    const segment = decodeSegment(frame.subarray(ETHERNET_HEADER))
    if (segment === undefined) return
    connections.get(tuple(segment.destination, segment.destinationPort, segment.source, segment.sourcePort))
      ?.receiveSegment(segment)
  })

  function send (packet: Uint8Array): void {
    const etherType = Buffer.alloc(2)
    etherType.writeUInt16BE((packet[0] as number) >> 4 === 4 ? ETH_P_IP : ETH_P_IPV6)
    socket.send(Buffer.concat([macs, etherType, packet]))
  }

  function endpoints (route: Route): Endpoints {
    const source = addressBytes(route.source)
    const destination = addressBytes(route.destination)
    if (source.length !== destination.length) throw new TypeError(`no route from ${route.source} to ${route.destination}`)
    const sourcePort = route.sourcePort ?? (lastPort = lastPort < LAST_PORT ? lastPort + 1 : FIRST_PORT)
    return { source, sourcePort, destination, destinationPort: route.port }
  }

  return {
    async connect (options) {
      const ends = endpoints(options)
      const name = tuple(ends.source, ends.sourcePort, ends.destination, ends.destinationPort)
      if (connections.has(name)) throw new Error(`a connection from ${options.source}:${ends.sourcePort} is still open`)
      const connection = new Connection(ends, options, send)
      connections.set(name, connection)
      connection.once('close', () => connections.delete(name))
      // Being reset is often what a test is about, and shows in `ending()` and in whatever is awaited.
      connection.on('error', () => {})
      connection.start()
      try {
        await eventOf(connection, 'connect', options.signal ?? AbortSignal.timeout(PATIENCE), 'the server has not answered the SYN')
      } catch (error) {
        connection.destroy()
        throw error
      }
      return connection
    },
    syn (options) {
      const packet = encodeSyn(endpoints(options), initialSequence(), options.syn, options.client)
      send(packet)
      return packet
    },
    close () {
      for (const connection of connections.values()) connection.destroy()
      socket.close()
    }
  }
}

interface Endpoints {
  readonly source: Buffer
  readonly sourcePort: number
  readonly destination: Buffer
  readonly destinationPort: number
}

/** What takes up sequence numbers: payload, SYN and FIN. */
interface Piece {
  readonly flags: number
  readonly payload: Uint8Array
}

interface SentPiece extends Piece {
  readonly sequence: number
}

/**
 * The client's end of a TCP connection, as a stream: clients of HTTP, TLS and HTTP/2 can be put on it.
 * It ends with FIN and is destroyed with RST. It has no congestion control, and takes in whatever comes.
 */
export class Connection extends Duplex {
  readonly sourcePort: number
  /** The IP packet of the first SYN. */
  readonly syn: Buffer
  readonly #ends: Endpoints
  readonly #handshake: Handshake
  readonly #send: (packet: Uint8Array) => void
  readonly #initialSequence = initialSequence()
  #established = false
  #ending: 'FIN' | 'RST' | undefined
  #waiting: Piece[] = []
  #unacknowledged: SentPiece[] = []
  #nextSequence: number
  #nextReceived = 0
  #answered = false
  #peerWindow = 0
  #peerWindowShift = 0
  /** The server's last timestamp; undefined unless both sides write timestamps. */
  #echo: number | undefined
  #timer: NodeJS.Timeout | undefined
  #retransmissions = 0
  #finished: (() => void) | undefined

  constructor (ends: Endpoints, handshake: Handshake, send: (packet: Uint8Array) => void) {
    super()
    this.sourcePort = ends.sourcePort
    this.#ends = ends
    this.#handshake = handshake
    this.#send = send
    this.syn = encodeSyn(ends, this.#initialSequence, handshake.syn, handshake.client)
    this.#nextSequence = add(this.#initialSequence, 1 + (handshake.syn?.payload?.length ?? 0))
  }

  start (): void {
    const { syn, client } = this.#handshake
    this.#send(this.syn)
    if (syn?.retransmit !== undefined) {
      this.#send(encodeSyn(this.#ends, this.#initialSequence, { ...syn.retransmit, payload: syn.payload }, client))
    }
    this.#restartTimer()
  }

  /** How the server ended the connection, once it has. */
  async ending (signal = AbortSignal.timeout(PATIENCE)): Promise<'FIN' | 'RST'> {
    if (this.#ending === undefined) await eventOf(this, 'ending', signal, 'the server has not ended the connection')
    return this.#ending as unknown as 'FIN' | 'RST'
  }

  /**
   * The next bytes, as many as `length` makes of those that have come so far; undefined: more are needed to tell;
   * Infinity: all until the server ends the connection.
   */
  async receive (
    length: number | ((received: Buffer) => number | undefined),
    signal = AbortSignal.timeout(PATIENCE)
  ): Promise<Buffer> {
    let received = NOTHING
    for (;;) {
      const wanted = typeof length === 'number' ? length : length(received)
      if (wanted !== undefined && received.length >= wanted) {
        if (received.length > wanted) this.unshift(received.subarray(wanted))
        return received.subarray(0, wanted)
      }
      const chunk = this.read() as Buffer | null
      if (chunk !== null) received = Buffer.concat([received, chunk])
      else if (this.#ending === 'FIN' && wanted === Infinity) return received
      else if (this.#ending !== undefined) throw this.errored ?? new Error(`the server has ended the connection after ${received.length} bytes`)
      else await eventOf(this, 'readable', signal, `the server has sent no more than ${received.length} bytes`)
    }
  }

  /** Sends an HTTP/1.1 request, as text, and receives its response. The connection may serve for the next. */
  async request (text: string, signal = AbortSignal.timeout(PATIENCE)): Promise<HttpResponse> {
    this.write(text)
    const response = (await this.receive(responseLength, signal)).toString('latin1')
    const [head = '', ...body] = response.split('\r\n\r\n')
    const [statusLine = '', ...fields] = head.split('\r\n')
    const headers = Object.fromEntries(fields.map((field) => {
      const [name = '', ...value] = field.split(':')
      return [name.toLowerCase(), value.join(':').trim()]
    }))
    return { status: Number(statusLine.split(' ')[1]), headers, body: Buffer.from(body.join('\r\n\r\n'), 'latin1').toString() }
  }

  /** For what has come in from the server. */
  receiveSegment (segment: ReceivedSegment): void {
    if (this.destroyed) return
    if ((segment.flags & RST) !== 0) this.#takeReset()
    else if ((segment.flags & SYN) !== 0) this.#takeSynAck(segment)
    else if (this.#established) this.#take(segment)
  }

  override _read (): void {}

  override _write (chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
    for (let at = 0; at < chunk.length; at += SEGMENT_MAX) {
      this.#waiting.push({ flags: PSH, payload: chunk.subarray(at, at + SEGMENT_MAX) })
    }
    this.#flush()
    done()
  }

  override _final (done: () => void): void {
    this.#finished = done
    this.#waiting.push({ flags: FIN, payload: NOTHING })
    this.#flush()
  }

  override _destroy (error: Error | null, done: (error: Error | null) => void): void {
    clearTimeout(this.#timer)
    const over = this.#ending === 'RST' || (this.#ending === 'FIN' && this.writableFinished)
    if (this.#established && !over) this.#sendSegment(RST | ACK, this.#nextSequence)
    done(error)
  }

  #takeReset (): void {
    this.#end('RST')
    this.destroy(new Error(this.#established ? 'the server has reset the connection' : 'the server has refused the connection'))
  }

  #takeSynAck (segment: ReceivedSegment): void {
    const first = !this.#established
    if (first) {
      const acknowledged = distance(this.#initialSequence, segment.acknowledgment)
      if (acknowledged < 1 || acknowledged > distance(this.#initialSequence, this.#nextSequence)) return
      const { timestamp, windowShift } = readOptions(segment.options)
      const own = readOptions(decodeSegment(this.syn)?.options ?? NOTHING)
      this.#echo = own.timestamp === undefined ? undefined : timestamp
      this.#peerWindowShift = windowShift ?? 0
      this.#peerWindow = segment.window
      this.#nextReceived = add(segment.sequence, 1)
      this.#nextSequence = segment.acknowledgment
      // Without Fast Open the server leaves the payload of a SYN, which is then sent again.
      const left = this.#handshake.syn?.payload?.subarray(acknowledged - 1) ?? NOTHING
      if (left.length > 0) this.#waiting.unshift({ flags: PSH, payload: left })
      this.#established = true
      this.#restartTimer()
    }
    if (this.#handshake.ack?.skip !== true) this.#sendSegment(ACK, segment.acknowledgment, this.#handshake.ack)
    this.#flush()
    if (first) this.emit('connect')
  }

  #take (segment: ReceivedSegment): void {
    if (this.#echo !== undefined) this.#echo = readOptions(segment.options).timestamp ?? this.#echo
    this.#peerWindow = segment.window * 2 ** this.#peerWindowShift
    const before = this.#unacknowledged.length
    this.#unacknowledged = this.#unacknowledged.filter((piece) =>
      distance(add(piece.sequence, sequenceLength(piece)), segment.acknowledgment) < 0)
    if (this.#unacknowledged.length < before) this.#restartTimer()
    this.#takePayload(segment)
    this.#flush()
    if (this.#waiting.length + this.#unacknowledged.length > 0) return
    this.#finished?.()
    this.#finished = undefined
  }

  #takePayload ({ sequence, flags, payload }: ReceivedSegment): void {
    const finishes = (flags & FIN) !== 0
    if (payload.length === 0 && !finishes) return
    // Negative: something before this was lost. Beyond its end: all of this has come before.
    const known = distance(sequence, this.#nextReceived)
    if (known >= 0 && known <= payload.length) {
      const news = payload.subarray(known)
      this.#nextReceived = add(this.#nextReceived, news.length)
      if (news.length > 0) {
        this.#answered = true
        this.push(Buffer.from(news))
      }
      if (finishes && this.#ending === undefined) {
        this.#nextReceived = add(this.#nextReceived, 1)
        this.#end('FIN')
        this.push(null)
      }
    }
    this.#sendSegment(ACK, this.#nextSequence)
  }

  #end (how: 'FIN' | 'RST'): void {
    this.#ending = how
    this.emit('ending')
  }

  /** Sends of what waits as much as the server's window has room for. */
  #flush (): void {
    if (!this.#established) return
    for (;;) {
      const piece = this.#waiting[0]
      if (piece === undefined) return
      const oldest = this.#unacknowledged[0]
      const inFlight = oldest === undefined ? 0 : distance(oldest.sequence, this.#nextSequence)
      if (inFlight > 0 && inFlight + piece.payload.length > this.#peerWindow) return
      this.#waiting.shift()
      const sent = { ...piece, sequence: this.#nextSequence }
      this.#unacknowledged.push(sent)
      this.#nextSequence = add(this.#nextSequence, sequenceLength(piece))
      this.#sendPiece(sent)
      if (oldest === undefined) this.#restartTimer()
    }
  }

  #sendPiece ({ flags, sequence, payload }: SentPiece): void {
    this.#sendSegment(flags | ACK, sequence, payload.length > 0 ? this.#handshake.data : undefined, payload)
  }

  #sendSegment (flags: number, sequence: number, shape?: Shape, payload: Uint8Array = NOTHING): void {
    const own = this.#echo === undefined ? [] : linuxOptions(milliseconds(), this.#echo)
    this.#send(encodeSegment({
      ...this.#ends,
      ...headers(shape, own, this.#answered),
      sequence,
      acknowledgment: this.#nextReceived,
      flags,
      window: WINDOW,
      payload
    }))
  }

  #restartTimer (): void {
    clearTimeout(this.#timer)
    this.#retransmissions = 0
    if (!this.#established || this.#unacknowledged.length > 0) this.#startTimer()
  }

  #startTimer (): void {
    this.#timer = setTimeout(() => {
      if (++this.#retransmissions > RETRANSMISSIONS_MAX) {
        this.destroy(new Error('the server acknowledges nothing'))
        return
      }
      this.#startTimer()
      if (!this.#established) this.#send(this.syn)
      for (const piece of this.#unacknowledged) this.#sendPiece(piece)
    }, RETRANSMISSION_TIMEOUT)
  }
}

/** Waits for an event, no longer than until the signal. */
async function eventOf (emitter: Connection, event: string, signal: AbortSignal, otherwise: string): Promise<void> {
  try {
    await once(emitter, event, { signal })
  } catch (error) {
    throw signal.aborted ? new Error(otherwise, { cause: error }) : error
  }
}

function encodeSyn (ends: Endpoints, sequence: number, shape: SynShape | undefined, own: Handshake['client']): Buffer {
  return encodeSegment({
    ...ends,
    ...headers(shape, own ?? linuxSynOptions(milliseconds()), false),
    sequence,
    acknowledgment: 0,
    flags: SYN,
    window: WINDOW,
    payload: shape?.payload ?? NOTHING
  })
}

function headers (shape: Shape = {}, own: readonly Option[], answered: boolean): Headers {
  const { options = own, dataOffset, ipOptions, extensionHeaders } = shape
  const list = typeof options === 'function' ? options(own, answered) : options
  return { options: Buffer.concat(list), dataOffset, ipOptions, extensionHeaders }
}

/** How long an HTTP/1.1 response is that begins so. */
function responseLength (received: Buffer): number | undefined {
  const end = received.indexOf('\r\n\r\n')
  if (end < 0) return undefined
  const contentLength = /^content-length: *(\d+)/im.exec(received.toString('latin1', 0, end))?.[1]
  return contentLength === undefined ? Infinity : end + 4 + Number(contentLength)
}

function tuple (source: Uint8Array, sourcePort: number, destination: Uint8Array, destinationPort: number): string {
  return [source, sourcePort, destination, destinationPort].join()
}

// Sequence numbers are counted modulo 2³².
function add (sequence: number, length: number): number {
  return (sequence + length) >>> 0
}

function distance (from: number, to: number): number {
  return (to - from) | 0
}

function sequenceLength ({ flags, payload }: Piece): number {
  return payload.length + ((flags & FIN) === 0 ? 0 : 1)
}

/** RFC 9293's clock, so that a port used again begins where the kernel takes it for new. */
function initialSequence (): number {
  return Number(process.hrtime.bigint() / 4000n & 0xffffffffn)
}

function milliseconds (): number {
  return Math.floor(performance.now()) >>> 0
}
