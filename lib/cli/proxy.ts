import { formatAddress } from '../address/address'
import type { Endpoint } from '../kernel/sockaddr'
import {
  CRC32C, decodeProxyHeader, LOCAL, type ProxyFault, type ProxyHeader, TCP_OVER_IPV4, TCP_OVER_IPV6, UDP_OVER_IPV4,
  UDP_OVER_IPV6, UNIX_DATAGRAM, UNIX_STREAM, UNSPEC
} from '../sources/proxy-header'
import {
  ALIBABA, ALPN, AUTHORITY, AWS, AZURE, GCP, nameTlv, NETNS, NOOP, readTlvs, SSL, type Tlv, UNIQUE_ID
} from '../sources/proxy-tlvs'
import { endpoint } from './seen'

const families: Readonly<Record<number, string>> = {
  [UNSPEC]: 'UNSPEC',
  [TCP_OVER_IPV4]: 'TCP over IPv4',
  [UDP_OVER_IPV4]: 'UDP over IPv4',
  [TCP_OVER_IPV6]: 'TCP over IPv6',
  [UDP_OVER_IPV6]: 'UDP over IPv6',
  [UNIX_STREAM]: 'UNIX stream',
  [UNIX_DATAGRAM]: 'UNIX datagram'
}

const types: Readonly<Record<number, string>> = {
  [ALPN]: 'ALPN',
  [AUTHORITY]: 'authority',
  [CRC32C]: 'CRC32C',
  [NOOP]: 'padding',
  [UNIQUE_ID]: 'unique id',
  [SSL]: 'TLS',
  [NETNS]: 'network namespace',
  [GCP]: 'GCP connection id',
  [ALIBABA]: 'Alibaba',
  [AWS]: 'AWS',
  [AZURE]: 'Azure'
}

/** The number of bytes printed around a fault, or of an incomplete header. */
const SHOWN = 16
/** The number of bytes printed of an unknown TLV's value. */
const VALUE_SHOWN = 64

/** Describes the PROXY header at the start of a connection, or its fault, in lines. */
export function describeProxyBytes (bytes: Uint8Array): string[] {
  const decoded = decodeProxyHeader(bytes, bytes.length)
  if (decoded === 'more') {
    return bytes.length === 0
      ? ['no bytes instead of a PROXY header']
      : [`the start of a PROXY header, ${bytes.length} bytes: the rest did not arrive`, `  ${dump(bytes, 0, SHOWN)}`]
  }
  if ('reason' in decoded) return describeFault(bytes, decoded)
  return describeHeader(bytes, decoded)
}

function describeFault (bytes: Uint8Array, { reason, at, what }: ProxyFault): string[] {
  const from = Math.max(0, at - SHOWN / 2)
  return [
    `${reason} at byte ${at}: ${what}`,
    `  bytes ${from} to ${Math.min(from + SHOWN, bytes.length) - 1}: ${dump(bytes, from, from + SHOWN)}`
  ]
}

function describeHeader (bytes: Uint8Array, { version, length, source, destination, tlvs }: ProxyHeader): string[] {
  const lines = [`PROXY version ${version}, ${version === 1 ? nameV1(bytes) : nameV2(bytes)}, ${length} bytes`]
  if (source !== undefined && destination !== undefined) {
    lines.push(`  source       ${textOf(source)}`, `  destination  ${textOf(destination)}`)
  } else {
    lines.push("  names no client: the answer is the sender's own address")
  }
  // Checked by the decoder.
  for (const tlv of readTlvs(tlvs) as Tlv[]) {
    const type = `0x${tlv.type.toString(16).padStart(2, '0')}`
    lines.push(`  TLV ${type}, ${types[tlv.type] ?? 'unknown'}, ${tlv.value.length} bytes: ${valueOf(tlv)}`)
  }
  if (bytes.length > length) lines.push(`  then ${bytes.length - length} bytes of the client's data`)
  return lines
}

function nameV1 (bytes: Uint8Array): string {
  return /^PROXY (TCP4|TCP6|UNKNOWN)/.exec(Buffer.from(bytes.subarray(0, 16)).toString('latin1'))?.[1] as string
}

function nameV2 (bytes: Uint8Array): string {
  const command = bytes[12] === LOCAL ? 'LOCAL' : 'PROXY'
  return `${command}, ${families[bytes[13] as number] ?? 'unknown family'}`
}

const textOf = (end: Endpoint): string => endpoint(formatAddress(end), end.port || undefined)

function valueOf (tlv: Tlv): string {
  if (tlv.type === CRC32C) return `${tlv.value.toString('hex')}, correct`
  const [property, value] = nameTlv(tlv) ?? []
  if (property === undefined) {
    const digits = tlv.value.toString('hex', 0, VALUE_SHOWN)
    return digits === '' ? 'empty' : tlv.value.length > VALUE_SHOWN ? `${digits} ...` : digits
  }
  return property === 'uniqueId' ? String(value) : printable(value)
}

/** JSON without control characters that could move the cursor, set colours or change the direction of text. */
const printable = (value: unknown): string => JSON.stringify(value).replace(/[^\x20-\x7e]/gu, (character) =>
  /\p{L}|\p{N}/u.test(character) ? character : `\\u{${(character.codePointAt(0) as number).toString(16)}}`)

/** Bytes as hexadecimal digits and as ASCII text. */
function dump (bytes: Uint8Array, from: number, to: number): string {
  const part = Buffer.from(bytes.subarray(from, to))
  const digits = part.toString('hex').replace(/..(?=.)/g, '$& ')
  return `${digits}  ${part.toString('latin1').replace(/[^\x20-\x7e]/g, '.')}`
}
