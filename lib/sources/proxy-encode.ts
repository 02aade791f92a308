import { inspect } from 'node:util'
import type { EncodeProxyHeaderOptions } from '../../types'
import { type Address, formatAddress, parseAddress } from '../address/address'
import { FST_REAL_IP_INVALID_OPTION } from '../errors'
import { crc32c } from './crc32c'
import {
  CRC32C, LOCAL, PROXY, PROXY_HEADER_MAX, SIGNATURE, TCP_OVER_IPV4, TCP_OVER_IPV6, UNSPEC, V1_START, V2_FIXED
} from './proxy-header'

interface Endpoint extends Address {
  readonly port: number
}

const known = ['version', 'source', 'destination', 'tlvs', 'checksum']
const example = "{ address: '203.0.113.7', port: 51234 }"

const invalid = (message: string) => new FST_REAL_IP_INVALID_OPTION(`encodeProxyHeader(): ${message}`)

export function encodeProxyHeader (options: EncodeProxyHeaderOptions = {}): Buffer {
  if (!isObject(options)) throw invalid(`takes an object like { source: ${example}, … }, not ${inspect(options)}`)
  const unknownKey = Object.keys(options).find((key) => !known.includes(key))
  if (unknownKey !== undefined) {
    throw invalid(`there is no option '${unknownKey}'; the options are '${known.join("', '")}'`)
  }
  const { version = 2, tlvs = [], checksum = false } = options
  if (version !== 1 && version !== 2) throw invalid(`'version' must be 1 or 2, not ${inspect(version)}`)
  if (!Array.isArray(tlvs)) {
    throw invalid(`'tlvs' must be a list like [{ type: 1, value: Buffer.from('h2') }], not ${inspect(tlvs)}`)
  }
  if (typeof checksum !== 'boolean') throw invalid(`'checksum' must be true or false, not ${inspect(checksum)}`)
  const source = checkEndpoint('source', options.source)
  const destination = checkEndpoint('destination', options.destination)
  if (source?.family !== destination?.family) {
    throw invalid(source === undefined || destination === undefined
      ? "give both 'source' and 'destination', or neither for a header that names no client"
      : `'source' is ${source.family} and 'destination' is ${destination.family}; give two addresses of one family`)
  }
  if (version === 1) {
    if (tlvs.length > 0 || checksum) {
      throw invalid("version 1 has no TLVs and no checksum; remove 'tlvs' and 'checksum', or use version: 2")
    }
    return encodeV1(source, destination)
  }
  return encodeV2(source, destination, tlvs.map(encodeTlv), checksum)
}

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null

function checkEndpoint (name: string, given: EncodeProxyHeaderOptions['source']): Endpoint | undefined {
  if (given === undefined) return undefined
  if (!isObject(given)) throw invalid(`'${name}' must be like ${example}, not ${inspect(given)}`)
  const { address, port } = given
  const parsed = typeof address === 'string' ? parseAddress(address) : undefined
  if (parsed === undefined) {
    throw invalid(`'${name}.address' must be an IP address without zone, like '203.0.113.7', not ${inspect(address)}`)
  }
  if (!Number.isInteger(port) || port < 0 || port > 0xffff) {
    throw invalid(`'${name}.port' must be a whole number from 0 to 65535, not ${inspect(port)}`)
  }
  return { ...parsed, port }
}

function encodeV1 (source: Endpoint | undefined, destination: Endpoint | undefined): Buffer {
  if (source === undefined || destination === undefined) return Buffer.from(`${V1_START}UNKNOWN\r\n`)
  const protocol = source.family === 'IPv4' ? 'TCP4' : 'TCP6'
  const addresses = `${formatAddress(source)} ${formatAddress(destination)}`
  return Buffer.from(`${V1_START}${protocol} ${addresses} ${source.port} ${destination.port}\r\n`)
}

function encodeV2 (
  source: Endpoint | undefined, destination: Endpoint | undefined, tlvs: Buffer[], checksum: boolean
): Buffer {
  const named = source !== undefined && destination !== undefined
  const addresses = named
    ? [encodeAddress(source), encodeAddress(destination), encodeUint16(source.port), encodeUint16(destination.port)]
    : []
  const body = Buffer.concat([...addresses, ...tlvs, ...checksum ? [Buffer.of(CRC32C, 0, 4, 0, 0, 0, 0)] : []])
  const length = V2_FIXED + body.length
  if (length > PROXY_HEADER_MAX) {
    throw invalid(
      `the header would have ${length} bytes, but receivers read at most ${PROXY_HEADER_MAX}; remove some of 'tlvs'`)
  }
  const command = named ? PROXY : LOCAL
  const family = named ? source.family === 'IPv4' ? TCP_OVER_IPV4 : TCP_OVER_IPV6 : UNSPEC
  const header = Buffer.concat([Buffer.of(...SIGNATURE, command, family), encodeUint16(body.length), body])
  if (checksum) header.writeUInt32BE(crc32c(header, length, length - 4), length - 4)
  return header
}

function encodeAddress ({ family, w0, w1, w2, w3 }: Endpoint): Buffer {
  const words = family === 'IPv4' ? [w3] : [w0, w1, w2, w3]
  const bytes = Buffer.alloc(words.length * 4)
  for (const [index, word] of words.entries()) bytes.writeInt32BE(word | 0, index * 4)
  return bytes
}

function encodeTlv (given: { readonly type: number, readonly value: Uint8Array | string }, index: number): Buffer {
  const name = `'tlvs[${index}]'`
  if (!isObject(given)) {
    throw invalid(`${name} must be like { type: 1, value: Buffer.from('h2') }, not ${inspect(given)}`)
  }
  const { type, value } = given
  if (!Number.isInteger(type) || type < 0 || type > 0xff) {
    throw invalid(`${name} needs a 'type' from 0 to 255, not ${inspect(type)}`)
  }
  if (typeof value === 'string' ? !/^(?:[0-9a-f]{2})*$/i.test(value) : !(value instanceof Uint8Array)) {
    throw invalid(
      `${name} needs a 'value' of bytes or of hexadecimal text, not ${inspect(value)}; write text as Buffer.from(text)`)
  }
  const bytes = typeof value === 'string' ? Buffer.from(value, 'hex') : value
  if (bytes.length > 0xffff) throw invalid(`${name} has ${bytes.length} bytes; a TLV has at most 65535`)
  return Buffer.concat([Buffer.of(type), encodeUint16(bytes.length), bytes])
}

function encodeUint16 (value: number): Buffer {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}
