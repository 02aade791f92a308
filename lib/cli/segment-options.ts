import { formatAddress } from '../address/address'
import { createEndpoint, decodeIPv6, unmap, word } from '../kernel/sockaddr'
import { tcpHeaderAt, tcpOptionsEnd } from '../kernel/tcp-header'
import { isExperiment } from '../sources/toa-option'

/** A TCP option of a segment, with what it would mean if a balancer wrote it. */
export interface SegmentOption {
  readonly kind: number
  readonly length: number
  /** `'toa'`; a name as tcpdump(1) has it; `'malformed'`; or `'kind N'`. */
  readonly name: string
  /** Its value in words, or in hexadecimal digits where it is not known; absent where it has none. */
  readonly value?: string
  /** Of TOA: the address that it means. */
  readonly address?: string
  readonly port?: number
  /** Of TOA: who writes this kind and length. */
  readonly writtenBy?: string
  /** Of TOA that `toa` can describe: how the command line has it. */
  readonly format?: string
}

// IANA TCP parameters.
const EOL = 0
const NOP = 1
const names: Readonly<Record<number, string>> = {
  2: 'mss', 3: 'wscale', 4: 'sackOK', 5: 'sack', 8: 'ts', 19: 'md5', 28: 'uto', 29: 'tcp-ao', 30: 'mptcp', 34: 'tfo', 69: 'eno'
}

interface ToaKind {
  readonly kind: number
  readonly length: number
  readonly family: 'IPv4' | 'IPv6'
  readonly by: string
}

// The longer forms of vtoa begin as the plain ones do, and go on with the virtual server.
const toaKinds: ReadonlyArray<ToaKind> = [
  { kind: 254, length: 8, family: 'IPv4', by: 'Alibaba, DPVS, Huawei, UCloud' },
  { kind: 253, length: 20, family: 'IPv6', by: 'Alibaba' },
  { kind: 254, length: 20, family: 'IPv6', by: 'DPVS' },
  { kind: 200, length: 8, family: 'IPv4', by: 'UCloud, Tencent' },
  { kind: 253, length: 8, family: 'IPv4', by: 'UCloud, Tencent' },
  { kind: 252, length: 20, family: 'IPv4', by: 'Alibaba, with the virtual server' },
  { kind: 249, length: 40, family: 'IPv6', by: 'Alibaba, with the virtual server' }
]

// Version 1 of what Akamai writes, and proxies that follow it: the version, then the address, and no port.
const AKAMAI = 28
const AKAMAI_LENGTH = 7

/** The options of the segment in `bytes`, IP and TCP headers, in order. */
export function readSegmentOptions (bytes: Uint8Array, length: number): SegmentOption[] {
  const tcp = tcpHeaderAt(bytes, length)
  const start = tcp + 20
  const end = tcpOptionsEnd(bytes, length, tcp)
  const options: SegmentOption[] = []
  for (let at = start; at < end;) {
    const kind = bytes[at] as number
    if (kind === EOL) break
    const size = kind === NOP ? 1 : bytes[at + 1] as number
    if (kind !== NOP && (at + 1 === end || size < 2 || at + size > end)) {
      options.push({ kind, length: end - at, name: 'malformed', value: hexadecimal(bytes, at, end) })
      break
    }
    options.push(readOption(bytes, at, size, positionOf(bytes, at, size, start, end)))
    at += size
  }
  return options
}

/** Where an option stands, if at an end: behind the last there is padding at most. */
function positionOf (bytes: Uint8Array, at: number, size: number, start: number, end: number): 'first' | 'last' | undefined {
  if (at === start) return 'first'
  return bytes.subarray(at + size, end).every((byte) => byte === EOL || byte === NOP) ? 'last' : undefined
}

function readOption (bytes: Uint8Array, at: number, length: number, position: 'first' | 'last' | undefined): SegmentOption {
  const kind = bytes[at] as number
  if (kind === NOP) return { kind, length, name: 'nop' }
  const option = { kind, length }
  const toaKind = toaKinds.find((known) => known.kind === kind && known.length === length)
  if (isExperiment(bytes, at)) return { ...option, name: 'experiment', value: hexadecimal(bytes, at + 2, at + length) }
  if (toaKind !== undefined) {
    const { family, by } = toaKind
    return {
      ...option,
      name: 'toa',
      address: addressAt(bytes, at + 4, family),
      port: bytes[at + 2] as number << 8 | bytes[at + 3] as number,
      writtenBy: by,
      ...(position !== undefined && { format: `${kind}/${length}/${family}/${position}` })
    }
  }
  if (kind === AKAMAI && length >= AKAMAI_LENGTH && bytes[at + 2] === 1) {
    return { ...option, name: 'toa', address: addressAt(bytes, at + 3, 'IPv4'), writtenBy: 'Akamai' }
  }
  const name = names[kind] ?? `kind ${kind}`
  const value = valueOf(name, bytes, at, length)
  return { ...option, name, ...(value !== '' && { value }) }
}

function addressAt (bytes: Uint8Array, at: number, family: 'IPv4' | 'IPv6'): string {
  const endpoint = createEndpoint()
  if (family === 'IPv6') {
    decodeIPv6(bytes, at, endpoint)
    unmap(endpoint)
  } else {
    endpoint.w3 = word(bytes, at)
  }
  return formatAddress(endpoint)
}

function valueOf (name: string, bytes: Uint8Array, at: number, length: number): string {
  switch (`${name}/${length}`) {
    case 'mss/4': return String(bytes[at + 2] as number << 8 | bytes[at + 3] as number)
    case 'wscale/3': return String(bytes[at + 2])
    case 'ts/10': return `${word(bytes, at + 2) >>> 0}/${word(bytes, at + 6) >>> 0}`
    default: return hexadecimal(bytes, at + 2, at + length)
  }
}

const hexadecimal = (bytes: Uint8Array, from: number, to: number): string => Buffer.from(bytes.subarray(from, to)).toString('hex')
