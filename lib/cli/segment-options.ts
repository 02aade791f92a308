import type { ToaFormat } from '../../types'
import { formatAddress } from '../address/address'
import { TCPOPT_EOL, TCPOPT_NOP } from '../kernel/constants'
import { createEndpoint, decodeAddress, uint16, word } from '../kernel/sockaddr'
import { decodeSender, hasPayload, hasSyn, tcpHeaderAt, tcpOptionsEnd } from '../kernel/tcp-header'
import { findToa, isExperiment } from '../sources/toa-option'
import { isPlausible } from '../trust/plausible'

/** A TCP option of a segment, with its meaning if a balancer wrote it. */
export interface SegmentOption {
  readonly kind: number
  readonly length: number
  /** `'toa'`; `'virtual-server'`; a name as in tcpdump(1); `'malformed'`; or `'kind N'`. */
  readonly name: string
  /** Its value as text, or as hexadecimal digits if the kind is unknown; absent if it has none. */
  readonly value?: string
  /** TOA only: the address. */
  readonly address?: string
  readonly port?: number
  /** TOA only: who writes this kind and length. */
  readonly writtenBy?: string
  /** TOA with a virtual server only: the balancer's virtual server. */
  readonly virtualServer?: { readonly address: string, readonly port?: number }
  /** TOA that `toa` can describe: the format for the command line. */
  readonly format?: string
  /** TOA on a SYN, instead of `format`: why the plugin would ignore it, or reset the connection. */
  readonly refused?: string
  /** Unknown options of TOA's size only: the address that it would mean. */
  readonly wouldBe?: { readonly address: string, readonly port: number }
}

// IANA TCP parameters, named as in tcpdump(1).
const names: Readonly<Record<number, string>> = {
  2: 'mss',
  3: 'wscale',
  4: 'sackOK',
  5: 'sack',
  8: 'ts',
  19: 'md5',
  28: 'uto',
  29: 'tcp-ao',
  30: 'mptcp',
  34: 'tfo',
  69: 'eno'
}

interface ToaKind {
  readonly kind: number
  readonly length: number
  readonly family: 'IPv4' | 'IPv6'
  readonly by: string
  /** Offsets of the virtual server's address and port. */
  readonly vip?: number
  readonly vport?: number
}

// vtoa's longer formats: the plain one, followed by the virtual server.
const toaKinds: ReadonlyArray<ToaKind> = [
  { kind: 254, length: 8, family: 'IPv4', by: 'Alibaba, DPVS, Huawei, UCloud' },
  { kind: 253, length: 20, family: 'IPv6', by: 'Alibaba' },
  { kind: 254, length: 20, family: 'IPv6', by: 'DPVS' },
  { kind: 200, length: 8, family: 'IPv4', by: 'UCloud, Tencent' },
  { kind: 253, length: 8, family: 'IPv4', by: 'UCloud, Tencent' },
  { kind: 252, length: 20, family: 'IPv4', by: 'Alibaba, with the virtual server', vip: 12, vport: 16 },
  { kind: 249, length: 40, family: 'IPv6', by: 'Alibaba, with the virtual server', vip: 24 }
]

// vtoa's option with the virtual server's port and address, without a client.
const VIRTUAL_SERVER = 250
// Version 1 of the format of Akamai and proxies that follow it: a version and the address, no port.
const AKAMAI = 28
const AKAMAI_LENGTH = 7

/** A segment's headers, with the start and end of its options. */
interface Segment {
  readonly bytes: Uint8Array
  readonly tcp: number
  readonly start: number
  readonly end: number
}

/** The options of a segment, IP and TCP headers in `bytes`, in order. */
export function readSegmentOptions (bytes: Uint8Array, length: number): SegmentOption[] {
  const tcp = tcpHeaderAt(bytes, length)
  const segment: Segment = { bytes, tcp, start: tcp + 20, end: tcpOptionsEnd(bytes, length, tcp) }
  const { start, end } = segment
  const options: SegmentOption[] = []
  for (let at = start; at < end;) {
    const kind = bytes[at] as number
    if (kind === TCPOPT_EOL) break
    const size = kind === TCPOPT_NOP ? 1 : bytes[at + 1] as number
    if (kind !== TCPOPT_NOP && (at + 1 === end || size < 2 || at + size > end)) {
      options.push({ kind, length: end - at, name: 'malformed', value: hexadecimal(bytes, at, end) })
      break
    }
    options.push(readOption(segment, at, size))
    at += size
  }
  return options
}

function readOption (segment: Segment, at: number, length: number): SegmentOption {
  const { bytes } = segment
  const kind = bytes[at] as number
  if (kind === TCPOPT_NOP) return { kind, length, name: 'nop' }
  const option = { kind, length }
  const toaKind = toaKinds.find((known) => known.kind === kind && known.length === length)
  if (isExperiment(bytes, at)) return { ...option, name: 'experiment', value: hexadecimal(bytes, at + 2, at + length) }
  if (toaKind !== undefined) return readToa(segment, at, toaKind)
  if (kind === AKAMAI && length >= AKAMAI_LENGTH && bytes[at + 2] === 1) {
    return { ...option, name: 'toa', address: addressText(bytes, at + 3, 'IPv4'), writtenBy: 'Akamai' }
  }
  if (kind === VIRTUAL_SERVER && length === 8) {
    const value = `${addressText(bytes, at + 4, 'IPv4')}:${uint16(bytes, at + 2)}`
    return { ...option, name: 'virtual-server', value }
  }
  const known = names[kind]
  const name = known ?? `kind ${kind}`
  const value = valueOf(name, bytes, at, length)
  return {
    ...option,
    name,
    ...(value !== '' && { value }),
    ...(known === undefined && (length === 8 || length === 20) && {
      wouldBe: { address: addressText(bytes, at + 4, length === 8 ? 'IPv4' : 'IPv6'), port: uint16(bytes, at + 2) }
    })
  }
}

function readToa (segment: Segment, at: number, { kind, length, family, by, vip, vport }: ToaKind): SegmentOption {
  const { bytes } = segment
  const position = positionOf(segment, at, length)
  const format: ToaFormat = { kind, length, family, position: position ?? 'first' }
  const refused = hasSyn(bytes, segment.tcp) ? whyRefused(segment, format) : undefined
  return {
    kind,
    length,
    name: 'toa',
    address: addressText(bytes, at + 4, family),
    port: uint16(bytes, at + 2),
    writtenBy: by,
    ...(vip !== undefined && {
      virtualServer: {
        address: addressText(bytes, at + vip, family),
        ...(vport !== undefined && { port: uint16(bytes, at + vport) })
      }
    }),
    ...(refused !== undefined && { refused }),
    ...(refused === undefined && position !== undefined && { format: `${kind}/${length}/${family}/${position}` })
  }
}

/** Whether an option is first or last: after the last there is only padding. */
function positionOf ({ bytes, start, end }: Segment, at: number, size: number): 'first' | 'last' | undefined {
  if (at === start) return 'first'
  return bytes.subarray(at + size, end).every((byte) => byte === TCPOPT_EOL || byte === TCPOPT_NOP) ? 'last' : undefined
}

/** Why the plugin would not believe a SYN's TOA if `toa` had this format; `undefined` if it would. */
function whyRefused ({ bytes, tcp, start, end }: Segment, format: ToaFormat): string | undefined {
  const [claim, sender] = [createEndpoint(), createEndpoint()]
  decodeSender(bytes, tcp, sender)
  const reason = findToa(bytes, start, end, hasPayload(bytes, tcp), [format], claim)
  return reason ?? (isPlausible(claim, sender) ? undefined : 'implausible')
}

/** Formats the address at that offset. */
export function addressText (bytes: Uint8Array, at: number, family: 'IPv4' | 'IPv6'): string {
  const endpoint = createEndpoint()
  decodeAddress(bytes, at, family === 'IPv6', endpoint)
  return formatAddress(endpoint)
}

function valueOf (name: string, bytes: Uint8Array, at: number, length: number): string {
  switch (`${name}/${length}`) {
    case 'mss/4': return String(uint16(bytes, at + 2))
    case 'wscale/3': return String(bytes[at + 2])
    case 'ts/10': return `${word(bytes, at + 2) >>> 0}/${word(bytes, at + 6) >>> 0}`
    default: return hexadecimal(bytes, at + 2, at + length)
  }
}

const hexadecimal = (bytes: Uint8Array, from: number, to: number): string =>
  Buffer.from(bytes.subarray(from, to)).toString('hex')
