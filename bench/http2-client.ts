import type { Socket } from 'node:net'

// The part of RFC 9113 that repeated requests need: node:http2 would keep the client busier than the server.

const STREAMS = 100
const FRAME_HEADER = 9
const DATA = 0
const HEADERS = 1
const RST_STREAM = 3
const SETTINGS = 4
const GOAWAY = 7
const WINDOW_UPDATE = 8
const END_STREAM = 1
const ACK = 1
const END_HEADERS = 4
const STATUS_200 = 0x88
const LARGEST_WINDOW = 2 ** 31 - 1
const FIRST_WINDOW = 2 ** 16 - 1

function frame (type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(FRAME_HEADER)
  header.writeUIntBE(payload.length, 0, 3)
  header[3] = type
  header[4] = flags
  header.writeUInt32BE(stream, 5)
  return Buffer.concat([header, payload])
}

function uint32 (value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

const literal = (text: string) => Buffer.concat([Buffer.of(text.length), Buffer.from(text)])

/** HPACK without a dynamic table: GET, http and / of the static table, then literals. */
const requestHeaders = (forwardedFor: string) => Buffer.concat([
  Buffer.of(0x82, 0x86, 0x84), Buffer.of(0x01), literal('localhost'),
  Buffer.of(0x00), literal('x-forwarded-for'), literal(forwardedFor)
])

/** One connection with up to a hundred concurrent streams. */
export class Http2Client {
  readonly #socket: Socket
  readonly #request: Buffer
  #rest: Buffer = Buffer.alloc(0)
  #stream = 1
  #left = 0
  #due = 0
  #done: (error?: Error) => void = () => {}

  constructor (socket: Socket, forwardedFor: string) {
    this.#socket = socket
    this.#request = frame(HEADERS, END_STREAM | END_HEADERS, 0, requestHeaders(forwardedFor))
    socket.on('data', (chunk) => {
      try {
        this.#read(chunk)
      } catch (error) {
        this.#done(error as Error)
      }
    })
    socket.on('error', (error) => this.#done(error))
    socket.on('close', () => this.#done(new Error('the connection was closed')))
    socket.write(Buffer.concat([
      Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
      frame(SETTINGS, 0, 0),
      frame(WINDOW_UPDATE, 0, 0, uint32(LARGEST_WINDOW - FIRST_WINDOW))
    ]))
  }

  async request (count: number): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#done = (error) => error === undefined ? resolve() : reject(error)
      this.#left = count
      this.#due = count
      this.#open(STREAMS)
    })
  }

  #open (streams: number): void {
    const opened = Math.min(streams, this.#left)
    this.#left -= opened
    this.#socket.write(Buffer.concat(Array.from({ length: opened }, () => {
      const request = Buffer.from(this.#request)
      request.writeUInt32BE(this.#stream, 5)
      this.#stream += 2
      return request
    })))
  }

  #read (chunk: Buffer): void {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk])
    let ended = 0
    while (bytes.length >= FRAME_HEADER) {
      const end = FRAME_HEADER + bytes.readUIntBE(0, 3)
      if (bytes.length < end) break
      const type = bytes[3] as number
      const flags = bytes[4] as number
      if (type === RST_STREAM || type === GOAWAY) throw new Error(`unexpected frame of type ${type}`)
      if (type === HEADERS && bytes[FRAME_HEADER] !== STATUS_200) throw new Error('unexpected status')
      if (type === SETTINGS && (flags & ACK) === 0) this.#socket.write(frame(SETTINGS, ACK, 0))
      if ((type === HEADERS || type === DATA) && (flags & END_STREAM) !== 0) ended++
      bytes = bytes.subarray(end)
    }
    this.#rest = bytes
    this.#due -= ended
    if (this.#due === 0 && ended > 0) this.#done()
    else if (ended > 0 && this.#left > 0) this.#open(ended)
  }
}
