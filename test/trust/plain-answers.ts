import { endianness } from 'node:os'
import fc from 'fast-check'
import { textOf, unmapped } from './plain'

// Answers of netlink, and a second implementation of what is read from them.

// <linux/netlink.h>, <linux/sock_diag.h>, <net/tcp_states.h>
const NLMSG_ERROR = 2
const NLMSG_DONE = 3
const NLM_F_MULTI = 2
export const SOCK_DIAG_BY_FAMILY = 20
const TCP_LISTEN = 10
export const AF_INET = 2
export const AF_INET6 = 10
export const HEADER = 16
const INET_DIAG_MSG = 72

const little = endianness() === 'LE'
export const u16 = (bytes: Buffer, at: number) => little ? bytes.readUInt16LE(at) : bytes.readUInt16BE(at)
export const u32 = (bytes: Buffer, at: number) => little ? bytes.readUInt32LE(at) : bytes.readUInt32BE(at)

function message (type: number, flags: number, size: number, body: Uint8Array): number[] {
  const bytes = Buffer.alloc(Math.max(HEADER, HEADER + body.length))
  if (little) {
    bytes.writeUInt32LE(size, 0)
    bytes.writeUInt16LE(type, 4)
    bytes.writeUInt16LE(flags, 6)
  } else {
    bytes.writeUInt32BE(size, 0)
    bytes.writeUInt16BE(type, 4)
    bytes.writeUInt16BE(flags, 6)
  }
  bytes.set(body, HEADER)
  return [...bytes]
}

export const octets = (minLength: number, maxLength: number) => fc.uint8Array({ minLength, maxLength })
const mapped = [...new Array(10).fill(0), 255, 255]
const socket = fc.tuple(fc.constantFrom(AF_INET, AF_INET6, 1), fc.constantFrom(1, 1, 1, TCP_LISTEN), octets(70, 90), fc.boolean())
  .map(([family, state, rest, isMapped]) => {
    const body = Uint8Array.from([family, state, ...rest])
    if (isMapped) body.set(mapped, 24)
    return body
  })
const anyMessage = fc.tuple(
  fc.constantFrom(SOCK_DIAG_BY_FAMILY, SOCK_DIAG_BY_FAMILY, SOCK_DIAG_BY_FAMILY, SOCK_DIAG_BY_FAMILY, NLMSG_DONE, NLMSG_ERROR, 21),
  fc.constantFrom(NLM_F_MULTI, NLM_F_MULTI, NLM_F_MULTI, 0),
  fc.oneof(socket, octets(0, 80)),
  fc.oneof({ weight: 8, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.integer({ min: -20, max: 20 }) }, { weight: 1, arbitrary: fc.integer({ min: 0, max: 0x7fffffff }) })
).map(([type, flags, body, wrong]) => {
  const padded = [...message(type, flags, Math.max(0, HEADER + body.length + wrong), body)]
  while (padded.length % 4 !== 0) padded.push(0)
  return padded
})
export const answers = fc.oneof(
  { weight: 4, arbitrary: fc.array(anyMessage, { maxLength: 5 }).map((list) => Uint8Array.from(list.flat())) },
  { weight: 1, arbitrary: octets(0, 120) }
)

/** The connections of one answer, and what is left of it. */
export function plainAnswers (bytes: Buffer): { found: string[], rest: string } {
  if (bytes.length === 0) return { found: [], rest: 'more' }
  if (bytes.length < HEADER) return { found: [], rest: 'broken' }
  const [size, type, flags] = [u32(bytes, 0), u16(bytes, 4), u16(bytes, 6)]
  if (size < HEADER || size > bytes.length) return { found: [], rest: 'broken' }
  if (type === NLMSG_DONE || type === NLMSG_ERROR) return { found: [], rest: 'done' }
  const body = bytes.subarray(HEADER, size)
  const found: string[] = []
  if (type === SOCK_DIAG_BY_FAMILY && body.length >= INET_DIAG_MSG && body[1] !== TCP_LISTEN) {
    const hex = body.subarray(24, body[0] === AF_INET6 ? 40 : 28).toString('hex')
    const address = unmapped({ family: body[0] === AF_INET6 ? 'IPv6' : 'IPv4', value: BigInt(`0x${hex}`) })
    const cookie = little ? body.readBigUInt64LE(44) : body.readBigUInt64BE(44)
    found.push(`${cookie} ${textOf(address)} ${body.readUInt16BE(6)}`)
  }
  if ((flags & NLM_F_MULTI) === 0) return { found, rest: 'done' }
  const next = plainAnswers(bytes.subarray(Math.ceil(size / 4) * 4))
  return { found: [...found, ...next.found], rest: next.rest }
}
