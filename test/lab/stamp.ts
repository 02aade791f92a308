import { isIPv4, isIPv6, SocketAddress } from 'node:net'

export type Segment = 'syn' | 'ack' | 'data'

/** What a client writes on each of its connections. */
export interface Stamp {
  /** IPv4 or IPv6 text; without it every connection claims the address derived from its local port */
  readonly address?: string
  /** default: the connection's local port */
  readonly port?: number
  /** family of the derived address, default 'v4' */
  readonly derive?: 'v4' | 'v6'
  /** each connection has a number of its own, counted from 0: it is the port, and the end of `address`, whose last three bytes are 0 */
  readonly numbered?: true
  /** default 254 for IPv4, 253 for IPv6 */
  readonly kind?: number
  /** default 8 for IPv4, 20 for IPv6; others cut the option short or fill it up with zeros */
  readonly length?: number
  /** these options as they are instead, one to four in a row */
  readonly bytes?: Uint8Array
  /** default ['syn', 'ack']; 'ack' is the segment that completes the handshake, 'data' all after it */
  readonly on?: readonly Segment[]
}

const OPTIONS_MAX = 4
const OPTION_LEN_MAX = 40
const ON: Record<Segment, number> = { syn: 1, ack: 2, data: 4 }
const WRITE_PORT = 1
const WRITE_ADDRESS = { v4: 2, v6: 4 }
const WRITE_NUMBER = { v4: 8, v6: 16 }
const DERIVED_NET = { v4: '10.77.0.0', v6: '2001:db8:77::' }

/** The address that a connection from `localPort` claims; no other port claims the same. */
export function derivedAddress (localPort: number, family: 'v4' | 'v6' = 'v4'): string {
  return family === 'v4'
    ? `10.77.${localPort >> 8}.${localPort & 255}`
    : `${DERIVED_NET.v6}${localPort.toString(16)}`
}

/** What a reader that believes the stamp has to answer for the connection from `localPort`. */
export function claimedBy (stamp: Stamp, localPort: number): { address: string, port: number } {
  return {
    address: stamp.address ?? derivedAddress(localPort, stamp.derive),
    port: stamp.port ?? localPort
  }
}

// struct stamp and struct connection of stamp.bpf.c
const STAMP_LEN = 16 + OPTIONS_MAX * OPTION_LEN_MAX
export const CONNECTION_LEN = STAMP_LEN + 4

/** What a `struct connection` claims with its first option, a TOA of 254/8 or 253/20; no port where that is 0. */
export function decodeStamp (connection: Uint8Array): { address: string, port: number | undefined } {
  const [kind, length = 0, high = 0, low = 0] = connection.subarray(16)
  const address = connection.subarray(20, 16 + length)
  const port = high << 8 | low || undefined
  if (kind === 254 && length === 8) return { address: address.join('.'), port }
  if (kind !== 253 || length !== 20) throw new Error(`kind ${kind} of ${length} bytes is no TOA of vtoa's`)
  const groups = Array.from({ length: 8 }, (_, i) => (address[2 * i]! << 8 | address[2 * i + 1]!).toString(16))
  return { address: new SocketAddress({ address: groups.join(':'), family: 'ipv6' }).address, port }
}

/** `struct stamp` of stamp.bpf.c. */
export function encodeStamp (stamp: Stamp | null): Uint8Array {
  const struct = new Uint8Array(STAMP_LEN)
  if (stamp === null) return struct
  const options = stamp.bytes === undefined ? [encodeOption(stamp)] : splitOptions(stamp.bytes)
  const fields = new Uint32Array(struct.buffer, 0, 4)
  fields[0] = (stamp.on ?? ['syn', 'ack']).reduce((bits, segment) => bits | ON[segment], 0)
  fields[1] = stamp.bytes === undefined ? derivedFields(stamp) : 0
  fields[2] = options.reduce((sum, option) => sum + option.length, 0)
  fields[3] = options.length
  options.forEach((option, i) => struct.set(option, 16 + i * OPTION_LEN_MAX))
  return struct
}

function encodeOption (stamp: Stamp): Uint8Array {
  const address = addressBytes(stamp.address ?? DERIVED_NET[stamp.derive ?? 'v4'])
  const port = stamp.port ?? 0
  const kind = stamp.kind ?? (address.length === 4 ? 254 : 253)
  const length = stamp.length ?? address.length + 4
  const option = Uint8Array.of(kind, length, port >> 8, port & 255, ...address, ...new Uint8Array(OPTION_LEN_MAX)).subarray(0, length)
  checkOption(option)
  return option
}

function derivedFields (stamp: Stamp): number {
  if (stamp.numbered) return WRITE_NUMBER[isIPv6(stamp.address ?? '') ? 'v6' : 'v4']
  const port = stamp.port === undefined ? WRITE_PORT : 0
  return stamp.address === undefined ? port | WRITE_ADDRESS[stamp.derive ?? 'v4'] : port
}

function splitOptions (bytes: Uint8Array): Uint8Array[] {
  const options: Uint8Array[] = []
  for (let at = 0; at < bytes.length; at += options.at(-1)!.length) {
    const option = bytes.subarray(at, at + (bytes[at + 1] ?? 0))
    checkOption(option)
    if (options.some(other => sameToKernel(other, option))) {
      throw new TypeError('the kernel writes no second option of the same kind (and, for 253 and 254, the same next two bytes)')
    }
    options.push(option)
  }
  if (options.length > OPTIONS_MAX) throw new TypeError(`at most ${OPTIONS_MAX} options on a segment`)
  return options
}

// The rules of bpf_store_hdr_opt; what breaks them takes a packet socket.
function checkOption (option: Uint8Array): void {
  const [kind = 0, length = 0] = option
  const shortest = kind === 253 || kind === 254 ? 4 : 2
  if (kind < 2 || length < shortest || length > OPTION_LEN_MAX || length !== option.length) {
    throw new TypeError(`the kernel writes only whole options: kind ${kind} needs a length of ${shortest} to ${OPTION_LEN_MAX} and as many bytes, not ${length}`)
  }
}

function sameToKernel (a: Uint8Array, b: Uint8Array): boolean {
  const experimental = a[0] === 253 || a[0] === 254
  return a[0] === b[0] && (!experimental || (a[2] === b[2] && a[3] === b[3]))
}

function addressBytes (address: string): Uint8Array {
  if (isIPv4(address)) return Uint8Array.from(address.split('.'), Number)
  if (!isIPv6(address)) throw new TypeError(`not an address: ${address}`)
  const groups = address.replace(/[\d.]+$/, tail => isIPv4(tail) ? hexOfIPv4(tail) : tail)
  const [head = '', tail] = groups.split('::')
  const left = head === '' ? [] : head.split(':')
  const right = tail === undefined || tail === '' ? [] : tail.split(':')
  const zeros = Array<string>(8 - left.length - right.length).fill('0')
  return Uint8Array.from([...left, ...zeros, ...right].flatMap(group => {
    const value = parseInt(group, 16)
    return [value >> 8, value & 255]
  }))
}

function hexOfIPv4 (address: string): string {
  const [a, b, c, d] = addressBytes(address) as unknown as [number, number, number, number]
  return `${(a << 8 | b).toString(16)}:${(c << 8 | d).toString(16)}`
}
