import fc from 'fast-check'
import { parsePlain, type Plain, textOf, unmapped } from '../trust/plain'

// A second implementation of the PROXY protocol's headers, slow and plain: regular expressions and slices of hexadecimal text.

/** `'more'`, a reason, or what the header says. */
export type PlainProxy = string | {
  readonly length: number
  readonly version: 1 | 2
  /** `address port`, of source and destination; none where no client is named. */
  readonly ends: readonly [source: string, destination: string] | undefined
  readonly tlvs: ReadonlyArray<readonly [type: number, value: Buffer]>
}

export function plainProxy (bytes: Buffer): PlainProxy {
  return bytes[0] === 13 ? plainV2(bytes) : plainV1(bytes.toString('latin1'))
}

const address = (plain: Plain) => textOf(unmapped(plain))

function plainV1 (text: string): PlainProxy {
  if (text.length < 6 && 'PROXY '.startsWith(text)) return 'more'
  if (!text.startsWith('PROXY ')) return 'proxy-missing'
  // At most 105 bytes stand before CR and LF.
  const line = (/^[^\r]*/.exec(text)?.[0] as string).slice(6)
  const ended = text.length > line.length + 6
  const started = /^(?:T|TC|TCP|TCP4|TCP4 [0-9. ]*|TCP6|TCP6 [0-9A-Fa-f.: ]*|U|UN|UNK|UNKN|UNKNO|UNKNOW|UNKNOWN(?: [^\n]*)?)?$/
  if (!started.test(line.slice(0, 99))) return 'proxy-malformed'
  if (line.length > 99) return 'proxy-too-long'
  if (!ended) return 'more'
  if (!/^(?:TCP[46] |UNKNOWN)/.test(line)) return 'proxy-malformed'
  const end = text.slice(line.length + 6, line.length + 8)
  if (end === '\r') return 'more'
  if (end !== '\r\n') return 'proxy-malformed'
  const length = line.length + 8
  if (line.startsWith('UNKNOWN')) return { length, version: 1, ends: undefined, tlvs: [] }
  const fields = line.split(' ')
  const [from, to] = fields.slice(1, 3).map((field) => parsePlain(field))
  const ports = fields.slice(3)
  const family = line.startsWith('TCP4') ? 'IPv4' : 'IPv6'
  if (from?.family !== family || to?.family !== family) return 'proxy-malformed'
  if (ports.length !== 2 || !ports.every((port) => String(Number(port)) === port && /^\d+$/.test(port) && Number(port) < 65536)) return 'proxy-malformed'
  return { length, version: 1, ends: [`${address(from)} ${ports[0]}`, `${address(to)} ${ports[1]}`], tlvs: [] }
}

const sizes: Record<string, number> = { '00': 0, 11: 12, 12: 12, 21: 36, 22: 36, 31: 216, 32: 216 }

function plainV2 (bytes: Buffer): PlainProxy {
  const hex = bytes.toString('hex')
  const signature = '0d0a0d0a000d0a515549540a'
  if (!hex.startsWith(signature.slice(0, hex.length))) return 'proxy-missing'
  const [, command, family, size] = /^(?:20|(21))?(..)?(....)?/.exec(hex.slice(24)) as RegExpExecArray
  if (hex.length > 24 && !/^2[01]/.test(hex.slice(24))) return 'proxy-malformed'
  const named = command !== undefined
  if (named && family !== undefined && !(family in sizes)) return 'proxy-malformed'
  if (size === undefined) return 'more'
  const length = 16 + parseInt(size, 16)
  if (length > 4096) return 'proxy-too-long'
  if (!named || family === '00') return bytes.length < length ? 'more' : { length, version: 2, ends: undefined, tlvs: [] }
  const addresses = sizes[family as string] as number
  if (length < 16 + addresses) return 'proxy-malformed'
  if (bytes.length < length) return 'more'
  const header = bytes.subarray(0, length)
  const tlvs = plainTlvs(header.subarray(16 + addresses))
  const sums = tlvs?.filter(([type]) => type === 3) ?? []
  if (tlvs === undefined || sums.length > 1 || sums.some(([, value]) => value.length !== 4)) return 'proxy-malformed'
  for (const [, value] of sums) {
    const zeroed = Buffer.from(header)
    zeroed.fill(0, value.byteOffset - header.byteOffset, value.byteOffset - header.byteOffset + 4)
    if (plainCrc32c(zeroed) !== value.toString('hex')) return 'proxy-checksum'
  }
  return { length, version: 2, ends: plainEnds(header.subarray(16, 16 + addresses)), tlvs }
}

function plainEnds (block: Buffer): [string, string] | undefined {
  if (block.length === 216) return undefined
  const size = block.length === 12 ? 4 : 16
  const end = (index: number) => {
    const value = BigInt(`0x${block.toString('hex', index * size, (index + 1) * size)}`)
    return `${address({ family: size === 4 ? 'IPv4' : 'IPv6', value })} ${block.readUInt16BE(2 * size + 2 * index)}`
  }
  return [end(0), end(1)]
}

export function plainTlvs (block: Buffer): Array<[type: number, value: Buffer]> | undefined {
  if (block.length === 0) return []
  const end = block.length < 3 ? Infinity : 3 + block.readUInt16BE(1)
  if (end > block.length) return undefined
  const rest = plainTlvs(block.subarray(end))
  return rest && [[block[0] as number, block.subarray(3, end)], ...rest]
}

/** Bit by bit; as eight hexadecimal digits. */
export function plainCrc32c (bytes: Uint8Array): string {
  let crc = 0xffffffffn
  for (const byte of bytes) {
    crc ^= BigInt(byte)
    for (let i = 0; i < 8; i++) crc = (crc & 1n) === 1n ? crc >> 1n ^ 0x82f63b78n : crc >> 1n
  }
  return (crc ^ 0xffffffffn).toString(16).padStart(8, '0')
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function plainText (value: Uint8Array): string | undefined {
  try {
    return utf8.decode(value)
  } catch {
    return undefined
  }
}

const sslNames: Record<number, string> = {
  0x21: 'version', 0x22: 'commonName', 0x23: 'cipher', 0x24: 'signatureAlgorithm', 0x25: 'keyAlgorithm', 0x26: 'group', 0x27: 'signatureScheme'
}

function plainSsl (value: Buffer): object | undefined {
  const nested = value.length < 5 ? undefined : plainTlvs(value.subarray(5))
  return nested && {
    client: value[0],
    verified: [2, 3, 4, 5, 6, 7].includes((value[0] as number) % 8) && value.toString('hex', 1, 5) === '00000000',
    ...plainNames(nested.map(([type, value]) => [type, value, type === 0x28 ? 'certificate' : sslNames[type], type === 0x28 ? value.toString('hex') : plainText(value)]))
  }
}

function plainNames (all: Array<[type: number, value: Buffer, name: string | undefined, meaning: unknown]>): object {
  const named = new Map<string, unknown>()
  const tlvs: object[] = []
  for (const [type, value, name, meaning] of all) {
    if (name === undefined || meaning === undefined || named.has(name)) tlvs.push({ type, value: value.toString('hex') })
    else named.set(name, meaning)
  }
  return { ...Object.fromEntries(named), tlvs }
}

/** What TLVs say, as the user gets it. */
export function plainDescription (tlvs: ReadonlyArray<readonly [type: number, value: Buffer]>): object {
  return plainNames(tlvs.filter(([type]) => type !== 3 && type !== 4).map(([type, value]) => {
    const hex = value.toString('hex')
    switch (type) {
      case 0x01: return [type, value, 'alpn', plainText(value)]
      case 0x02: return [type, value, 'authority', plainText(value)]
      case 0x05: return [type, value, 'uniqueId', hex]
      case 0x20: return [type, value, 'ssl', plainSsl(value)]
      case 0x30: return [type, value, 'netns', plainText(value)]
      case 0xe0: return [type, value, 'gcpPscConnectionId', hex.length === 16 ? BigInt(`0x${hex}`).toString() : undefined]
      case 0xe1: {
        const name = ['alibabaVpcId', 'alibabaEndpointId', 'alibabaEndpointServiceId'][parseInt(hex.slice(0, 2), 16) - 1]
        return [type, value, name, plainText(value.subarray(1))]
      }
      case 0xea: return [type, value, 'awsVpceId', hex.startsWith('01') ? plainText(value.subarray(1)) : undefined]
      case 0xee: return [type, value, 'azureLinkId', hex.length === 10 && hex.startsWith('01')
        ? parseInt((hex.slice(2).match(/../g) as string[]).reverse().join(''), 16)
        : undefined]
      default: return [type, value, undefined, undefined]
    }
  }))
}

// Headers of any shape.

const octets = (minLength: number, maxLength: number) => fc.uint8Array({ minLength, maxLength })
const number = fc.oneof({ weight: 20, arbitrary: fc.nat({ max: 255 }) }, { weight: 1, arbitrary: fc.constantFrom(256, 300) }).map(String)
const ipv4 = fc.tuple(number, number, number, number).map((parts) => parts.join('.'))
const group = fc.nat({ max: 0xffff }).map((group) => group.toString(16))
const ipv6 = fc.oneof(
  fc.array(group, { minLength: 8, maxLength: 8 }).map((groups) => groups.join(':')),
  fc.array(group, { maxLength: 5 }).map((groups) => `::${groups.join(':')}`),
  ipv4.map((address) => `::ffff:${address}`), ipv4, fc.constantFrom('::', '2001:DB8::1', 'fe80::1%eth0', ':::', '1::2::3'))
const port = fc.oneof({ weight: 5, arbitrary: fc.nat({ max: 65535 }).map(String) }, { weight: 1, arbitrary: fc.constantFrom('0', '65535', '65536', '080', '+80', '-1', '', '99999999') })
const v1 = fc.oneof(
  fc.tuple(fc.constant('TCP4'), ipv4, ipv4, port, port),
  fc.tuple(fc.constant('TCP6'), ipv6, ipv6, port, port),
  fc.tuple(fc.constant('UNKNOWN'), fc.oneof(fc.constant(''), fc.string({ maxLength: 110, size: 'max' }))),
  fc.tuple(fc.constantFrom('UNKNOWN', 'UNKNOWNX', 'TCP4', 'TCP5', 'tcp4'))
).map((fields) => Buffer.from(`PROXY ${fields.join(' ')}\r\n`, 'latin1'))

const u16 = (value: number) => [value >> 8, value & 255]
const tlvOf = (type: number, value: Iterable<number>) => [type, ...u16([...value].length), ...value]
const asText = fc.oneof(fc.string({ unit: 'binary', maxLength: 12 }).map((text) => Buffer.from(text)), octets(0, 6).map((bytes) => Buffer.from(bytes)))
const sslTlv = fc.tuple(fc.nat({ max: 7 }), fc.constantFrom([0, 0, 0, 0], [0, 0, 0, 1], [128, 0, 0, 0]),
  fc.array(fc.tuple(fc.integer({ min: 0x20, max: 0x29 }), asText), { maxLength: 4 }))
  .map(([client, verify, nested]) => tlvOf(0x20, [client, ...verify, ...nested.flatMap(([type, value]) => tlvOf(type, value))]))
const tlv = fc.oneof(
  fc.tuple(fc.constantFrom(1, 2, 4, 5, 0x30, 0xf0), asText).map(([type, value]) => tlvOf(type, value)),
  sslTlv,
  fc.tuple(fc.constantFrom(0xe1, 0xea), fc.nat({ max: 4 }), asText).map(([type, subtype, text]) => tlvOf(type, [subtype, ...text])),
  octets(4, 4).map((value) => tlvOf(0xee, [1, ...value])),
  octets(8, 8).map((value) => tlvOf(0xe0, value)),
  fc.tuple(fc.nat({ max: 255 }), octets(0, 10)).map(([type, value]) => tlvOf(type, value)))
const family = fc.oneof({ weight: 6, arbitrary: fc.constantFrom(0x11, 0x21) }, { weight: 2, arbitrary: fc.constantFrom(0, 0x12, 0x22, 0x31, 0x32) }, { weight: 1, arbitrary: fc.nat({ max: 255 }) })
const v2 = fc.tuple(
  fc.oneof({ weight: 8, arbitrary: fc.constant(0x21) }, { weight: 2, arbitrary: fc.constant(0x20) }, { weight: 1, arbitrary: fc.nat({ max: 255 }) }),
  family, octets(36, 36), fc.boolean(), fc.array(tlv, { maxLength: 5 }), fc.constantFrom('none', 'none', 'right', 'right', 'wrong', 'twice'), fc.constantFrom(0, 0, 0, 0, 1, -1)
).map(([command, family, random, mapped, tlvs, checksum, off]) => {
  const size = sizes[family.toString(16).padStart(2, '0')] ?? 12
  if (mapped && size === 36) random.set([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255])
  const addresses = [...random, ...new Array<number>(180).fill(0)].slice(0, size)
  const sum = checksum === 'none' ? [] : [3, 0, 4, 0, 0, 0, 0]
  const body = [...addresses, ...sum, ...tlvs.flat(), ...checksum === 'twice' ? sum : []]
  const header = Buffer.from([...Buffer.from('0d0a0d0a000d0a515549540a', 'hex'), command, family, ...u16(body.length + off & 0xffff), ...body])
  if (checksum === 'right') header.write(plainCrc32c(header), 16 + size + 3, 'hex')
  return header
})

/** Headers that are right or nearly so, often with something behind them. */
export const proxyHeaders: fc.Arbitrary<Uint8Array> = fc.tuple(
  fc.oneof({ weight: 2, arbitrary: v1 }, { weight: 3, arbitrary: v2 }), fc.constantFrom('', '', 'GET / HTTP/1.1\r\n', '\n', 'PROXY UNKNOWN\r\n')
).map(([header, behind]) => Uint8Array.from([...header, ...Buffer.from(behind)]))
