import { isIP, isIPv4 } from 'node:net'

// <netinet/in.h>
export const IPPROTO_HOPOPTS = 0
export const IPPROTO_ROUTING = 43
export const IPPROTO_FRAGMENT = 44
export const IPPROTO_DSTOPTS = 60
const IPPROTO_TCP = 6

/** The flags of a TCP header. */
export const FIN = 0x01
export const SYN = 0x02
export const RST = 0x04
export const PSH = 0x08
export const ACK = 0x10

const TCP_HEADER = 20
const IPV4_HEADER = 20
const IPV6_HEADER = 40
const TTL = 64

/** An IPv6 header between the fixed one and TCP's: its type, and all of it that follows the next-header byte. */
export interface ExtensionHeader {
  readonly type: number
  readonly body: Uint8Array
}

/** What of a segment's headers may be played in another way than an ordinary client would. */
export interface Headers {
  /** TCP's options, as bytes. Filled up with zeros (End of Option List) to the data offset. */
  readonly options?: Uint8Array | undefined
  /** The TCP header's length in words of four bytes, where it shall not follow from the options. */
  readonly dataOffset?: number | undefined
  /** IPv4's options, as bytes. */
  readonly ipOptions?: Uint8Array | undefined
  /** IPv6's extension headers, in this order. */
  readonly extensionHeaders?: readonly ExtensionHeader[] | undefined
}

export interface Segment extends Headers {
  /** Addresses as 4 or 16 bytes. */
  readonly source: Uint8Array
  readonly destination: Uint8Array
  readonly sourcePort: number
  readonly destinationPort: number
  readonly sequence: number
  readonly acknowledgment: number
  readonly flags: number
  readonly window: number
  readonly payload: Uint8Array
}

export interface ReceivedSegment extends Segment {
  readonly options: Buffer
  readonly payload: Buffer
}

/** An IPv4 or IPv6 address as 4 or 16 bytes. */
export function addressBytes (text: string): Buffer {
  if (isIP(text) === 0 || text.includes('%')) throw new TypeError(`not an IP address: ${text}`)
  if (isIPv4(text)) return Buffer.from(text.split('.').map(Number))
  const [front = '', back] = text
    .replace(/[\d.]+\.\d+$/, (dotted) => addressBytes(dotted).toString('hex').replace(/....(?=.)/, '$&:'))
    .split('::')
  const groups = (half: string) => half === '' ? [] : half.split(':').map((group) => parseInt(group, 16))
  const bytes = Buffer.alloc(16)
  groups(front).forEach((group, i) => bytes.writeUInt16BE(group, 2 * i))
  groups(back ?? '').reverse().forEach((group, i) => bytes.writeUInt16BE(group, 14 - 2 * i))
  return bytes
}

/** A hop-by-hop or destination options header of `length` bytes, a multiple of 8 up to 256, that asks for nothing. */
export function optionsHeader (type: typeof IPPROTO_HOPOPTS | typeof IPPROTO_DSTOPTS, length = 8): ExtensionHeader {
  // RFC 4727's, which whoever does not know it skips. Linux drops packets with more than 7 bytes of mere padding.
  const EXPERIMENTAL = 0x1e
  const body = Buffer.alloc(length - 1)
  body.set([length / 8 - 1, EXPERIMENTAL, length - 4])
  return { type, body }
}

/** A routing header of type 0 with no segment left, so that its receiver is the last one. */
export const routingHeader: ExtensionHeader = { type: IPPROTO_ROUTING, body: Buffer.alloc(7) }

/** A fragment header on a packet that is whole: offset 0, no more fragments. */
export const atomicFragmentHeader: ExtensionHeader = { type: IPPROTO_FRAGMENT, body: Buffer.alloc(7) }

/** The IP packet of a segment, with its checksums. */
export function encodeSegment (segment: Segment): Buffer {
  const options = segment.options ?? Buffer.alloc(0)
  const dataOffset = segment.dataOffset ?? Math.ceil((TCP_HEADER + options.length) / 4)
  if (dataOffset > 15) throw new RangeError(`a TCP header has room for 40 bytes of options, not ${options.length}`)
  const tcp = Buffer.alloc(Math.max(TCP_HEADER + options.length, 4 * dataOffset) + segment.payload.length)
  tcp.writeUInt16BE(segment.sourcePort, 0)
  tcp.writeUInt16BE(segment.destinationPort, 2)
  tcp.writeUInt32BE(segment.sequence >>> 0, 4)
  tcp.writeUInt32BE(segment.acknowledgment >>> 0, 8)
  tcp.writeUInt8(dataOffset << 4, 12)
  tcp.writeUInt8(segment.flags, 13)
  tcp.writeUInt16BE(segment.window, 14)
  tcp.set(options, TCP_HEADER)
  tcp.set(segment.payload, tcp.length - segment.payload.length)
  const pseudoHeader = Buffer.alloc(8)
  pseudoHeader.writeUInt32BE(tcp.length, 0)
  pseudoHeader.writeUInt32BE(IPPROTO_TCP, 4)
  tcp.writeUInt16BE(checksum(segment.source, segment.destination, pseudoHeader, tcp), 16)
  return segment.source.length === 4 ? ipv4Packet(segment, tcp) : ipv6Packet(segment, tcp)
}

function ipv4Packet (segment: Segment, tcp: Uint8Array): Buffer {
  const options = segment.ipOptions ?? Buffer.alloc(0)
  const header = Buffer.alloc(Math.ceil((IPV4_HEADER + options.length) / 4) * 4)
  header.writeUInt8(4 << 4 | header.length / 4, 0)
  header.writeUInt16BE(header.length + tcp.length, 2)
  header.writeUInt16BE(0x4000, 6) // don't fragment
  header.writeUInt8(TTL, 8)
  header.writeUInt8(IPPROTO_TCP, 9)
  header.set(segment.source, 12)
  header.set(segment.destination, 16)
  header.set(options, IPV4_HEADER)
  header.writeUInt16BE(checksum(header), 10)
  return Buffer.concat([header, tcp])
}

function ipv6Packet (segment: Segment, tcp: Uint8Array): Buffer {
  const extensions = segment.extensionHeaders ?? []
  const chain = extensions.flatMap(({ body }, i) => [Buffer.of(extensions[i + 1]?.type ?? IPPROTO_TCP), body])
  const content = Buffer.concat([...chain, tcp])
  const header = Buffer.alloc(IPV6_HEADER)
  header.writeUInt8(6 << 4, 0)
  header.writeUInt16BE(content.length, 4)
  header.writeUInt8(extensions[0]?.type ?? IPPROTO_TCP, 6)
  header.writeUInt8(TTL, 7)
  header.set(segment.source, 8)
  header.set(segment.destination, 24)
  return Buffer.concat([header, content])
}

/** RFC 1071, over parts of which all but the last have an even length. */
function checksum (...parts: Uint8Array[]): number {
  let sum = 0
  for (const part of parts) {
    for (let i = 0; i < part.length; i += 2) sum += (part[i] as number) << 8 | (part[i + 1] ?? 0)
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000)
  return ~sum & 0xffff
}

/**
 * The segment in an IP packet that Linux sent; undefined where it holds none. Checksums are not looked at: over a veth
 * pair they may be left unfinished.
 */
export function decodeSegment (packet: Buffer): ReceivedSegment | undefined {
  const version = (packet[0] ?? 0) >> 4
  if (version === 4 && packet.length >= IPV4_HEADER && packet[9] === IPPROTO_TCP) {
    const tcp = packet.subarray(((packet[0] as number) & 0xf) * 4, packet.readUInt16BE(2))
    return decodeTcp(packet.subarray(12, 16), packet.subarray(16, 20), tcp)
  }
  if (version === 6 && packet.length >= IPV6_HEADER && packet[6] === IPPROTO_TCP) {
    const tcp = packet.subarray(IPV6_HEADER, IPV6_HEADER + packet.readUInt16BE(4))
    return decodeTcp(packet.subarray(8, 24), packet.subarray(24, 40), tcp)
  }
  return undefined
}

function decodeTcp (source: Uint8Array, destination: Uint8Array, tcp: Buffer): ReceivedSegment | undefined {
  if (tcp.length < TCP_HEADER) return undefined
  const headerLength = (tcp.readUInt8(12) >> 4) * 4
  return {
    source,
    destination,
    sourcePort: tcp.readUInt16BE(0),
    destinationPort: tcp.readUInt16BE(2),
    sequence: tcp.readUInt32BE(4),
    acknowledgment: tcp.readUInt32BE(8),
    flags: tcp.readUInt8(13),
    window: tcp.readUInt16BE(14),
    options: tcp.subarray(TCP_HEADER, headerLength),
    payload: tcp.subarray(headerLength)
  }
}
