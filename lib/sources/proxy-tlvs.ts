import { isUtf8 } from 'node:buffer'
import type { ProxyProtocol, ProxySsl, ProxyTlv } from '../../types'
import { formatAddress } from '../address/address'
import { CRC32C, type ProxyHeader } from './proxy-header'

// Types of TLVs: those of proxy-protocol.txt, and those that clouds use from its range for custom types.
export const ALPN = 0x01
export const AUTHORITY = 0x02
export const NOOP = 0x04
export const UNIQUE_ID = 0x05
export const SSL = 0x20
export const NETNS = 0x30
export const GCP = 0xe0
export const ALIBABA = 0xe1
export const AWS = 0xea
export const AZURE = 0xee
// Subtypes, by the first byte of the value.
const alibabaTexts: Readonly<Record<number, keyof ProxyProtocol>> = {
  1: 'alibabaVpcId', 2: 'alibabaEndpointId', 3: 'alibabaEndpointServiceId'
}
const AWS_VPCE_ID = 1
const AZURE_LINK_ID = 1

const sslTexts: Readonly<Record<number, keyof ProxySsl>> = {
  0x21: 'version',
  0x22: 'commonName',
  0x23: 'cipher',
  0x24: 'signatureAlgorithm',
  0x25: 'keyAlgorithm',
  0x26: 'group',
  0x27: 'signatureScheme'
}
const SSL_CERTIFICATE = 0x28
// Bits of pp2_tlv_ssl.client that indicate a certificate.
const CERT_CONN = 2
const CERT_SESS = 4

export interface Tlv {
  readonly type: number
  readonly value: Buffer
}

/** The TLVs of a block in order; `undefined` if one does not end within it. */
export function readTlvs (block: Uint8Array): Tlv[] | undefined {
  const bytes = Buffer.from(block.buffer, block.byteOffset, block.length)
  const tlvs: Tlv[] = []
  for (let at = 0; at < bytes.length;) {
    const start = at + 3
    if (start > bytes.length) return undefined
    const end = start + bytes.readUInt16BE(at + 1)
    if (end > bytes.length) return undefined
    tlvs.push({ type: bytes.readUInt8(at), value: bytes.subarray(start, end) })
    at = end
  }
  return tlvs
}

/** The contents of a header besides the client's address, as the public object. */
export function describeProxyHeader ({ version, local, destination, tlvs }: ProxyHeader): ProxyProtocol {
  // The decoder has checked them.
  const meaningful = (readTlvs(tlvs) as Tlv[]).filter(({ type }) => type !== CRC32C && type !== NOOP)
  return Object.freeze({
    version,
    local,
    ...(destination !== undefined && {
      destination: Object.freeze({ address: formatAddress(destination), port: destination.port || undefined })
    }),
    ...nameAll(meaningful, nameTlv)
  })
}

type Named = readonly [property: string, value: string | number | ProxySsl]

/** The property of a TLV with its value; `undefined` if it has none, or its value is invalid. */
export function nameTlv ({ type, value }: Tlv): Named | undefined {
  switch (type) {
    case ALPN: return text('alpn', value)
    case AUTHORITY: return text('authority', value)
    case UNIQUE_ID: return ['uniqueId', hex(value)]
    case NETNS: return text('netns', value)
    case SSL: {
      const ssl = readSsl(value)
      return ssl && ['ssl', ssl]
    }
    case ALIBABA: {
      const property = alibabaTexts[value[0] ?? 0]
      return property && text(property, value.subarray(1))
    }
    case AWS: return value[0] === AWS_VPCE_ID ? text('awsVpceId', value.subarray(1)) : undefined
    case AZURE: return value[0] === AZURE_LINK_ID && value.length === 5
      ? ['azureLinkId', value.readUInt32LE(1)]
      : undefined
    case GCP: return value.length === 8 ? ['gcpPscConnectionId', String(value.readBigUInt64BE())] : undefined
    default: return undefined
  }
}

const text = (property: string, value: Buffer): Named | undefined =>
  isUtf8(value) ? [property, value.toString()] : undefined

const hex = (value: Buffer): string => value.toString('hex')

/** Returns `undefined` for an invalid value. */
function readSsl (value: Buffer): ProxySsl | undefined {
  const nested = value.length < 5 ? undefined : readTlvs(value.subarray(5))
  if (nested === undefined) return undefined
  const client = value.readUInt8(0)
  return Object.freeze({
    client,
    // Senders also write 0 if there was no certificate to verify.
    verified: (client & (CERT_CONN | CERT_SESS)) !== 0 && value.readUInt32BE(1) === 0,
    ...nameAll(nested, nameSslTlv)
  })
}

function nameSslTlv ({ type, value }: Tlv): Named | undefined {
  if (type === SSL_CERTIFICATE) return ['certificate', hex(value)]
  const property = sslTexts[type]
  return property && text(property, value)
}

/** The properties of known TLVs, and the list of the others. The first of a type counts. */
function nameAll (tlvs: readonly Tlv[], name: (tlv: Tlv) => Named | undefined) {
  const found: Record<string, Named[1]> = {}
  const others: ProxyTlv[] = []
  for (const tlv of tlvs) {
    const [property, value] = name(tlv) ?? []
    if (property === undefined || property in found) {
      others.push(Object.freeze({ type: tlv.type, value: hex(tlv.value) }))
    } else {
      found[property] = value as Named[1]
    }
  }
  return { ...found, tlvs: Object.freeze(others) }
}
