import { addressBytes } from './packet'

/** One TCP option, or any bytes at all that shall stand in its place. */
export type Option = Uint8Array

/** All that the data offset leaves room for. */
export const OPTIONS_MAX = 40

// <net/tcp.h>
const TCPOPT_EOL = 0
const TCPOPT_NOP = 1
const TCPOPT_MSS = 2
const TCPOPT_WINDOW = 3
const TCPOPT_SACK_PERM = 4
const TCPOPT_TIMESTAMP = 8
const TCPOPT_FASTOPEN = 34
const TCPOPT_EXP = 254
const TCPOPT_FASTOPEN_MAGIC = 0xf989
const TCPOPT_SMC_MAGIC = 0xe2d4c3d9

export const eol: Option = Uint8Array.of(TCPOPT_EOL)
export const nop: Option = Uint8Array.of(TCPOPT_NOP)

/** An option with its right length. */
export function option (kind: number, ...parts: Uint8Array[]): Option {
  const value = Buffer.concat(parts)
  return Buffer.concat([Uint8Array.of(kind, 2 + value.length), value])
}

/** The same bytes with another length byte. */
export function withLength (given: Option, length: number): Option {
  const bytes = Uint8Array.from(given)
  bytes[1] = length
  return bytes
}

export const mss = (bytes: number): Option => option(TCPOPT_MSS, uint16(bytes))
export const windowScale = (shift: number): Option => option(TCPOPT_WINDOW, Uint8Array.of(shift))
export const sackPermitted: Option = option(TCPOPT_SACK_PERM)
export const timestamps = (value: number, echo: number): Option => option(TCPOPT_TIMESTAMP, uint32(value), uint32(echo))
/** RFC 7413's cookie; an empty one asks for one. */
export const fastOpenCookie = (cookie: Uint8Array): Option => option(TCPOPT_FASTOPEN, cookie)
/** The same under the experimental kind that one TOA shares. */
export const fastOpenExperimental = (cookie: Uint8Array): Option =>
  option(TCPOPT_EXP, uint16(TCPOPT_FASTOPEN_MAGIC), cookie)
/** RFC 7609's announcement of SMC-R, of the same kind. */
export const smc: Option = option(TCPOPT_EXP, uint32(TCPOPT_SMC_MAGIC))

/** TOA: 8 bytes for an IPv4 address, 20 for IPv6. */
export function toa (kind: number, address: string, port: number): Option {
  return option(kind, uint16(port), addressBytes(address))
}

/** The kinds that each family of balancers writes. */
export const toaKinds = {
  alibaba: { IPv4: 254, IPv6: 253 },
  dpvs: { IPv4: 254, IPv6: 254 },
  ucloud: { IPv4: 200, IPv6: undefined },
  tencent: { IPv4: 200, IPv6: undefined }
} as const

/** What Linux puts on a SYN. */
export function linuxSynOptions (now: number): Option[] {
  return [mss(1460), sackPermitted, timestamps(now, 0), nop, windowScale(7)]
}

/** What Linux puts on every later segment once timestamps are agreed. */
export function linuxOptions (now: number, echo: number): Option[] {
  return [nop, nop, timestamps(now, echo)]
}

/** The values of well-formed options by their kind, as far as the first that is not. */
export function readOptions (bytes: Buffer): { timestamp: number | undefined, windowShift: number | undefined } {
  let timestamp: number | undefined
  let windowShift: number | undefined
  for (let i = 0; i < bytes.length && bytes[i] !== TCPOPT_EOL;) {
    if (bytes[i] === TCPOPT_NOP) {
      i++
      continue
    }
    const length = bytes[i + 1] ?? 0
    if (length < 2 || i + length > bytes.length) break
    if (bytes[i] === TCPOPT_TIMESTAMP && length === 10) timestamp = bytes.readUInt32BE(i + 2)
    if (bytes[i] === TCPOPT_WINDOW && length === 3) windowShift = bytes.readUInt8(i + 2)
    i += length
  }
  return { timestamp, windowShift }
}

function uint16 (value: number): Uint8Array {
  const bytes = Buffer.alloc(2)
  bytes.writeUInt16BE(value)
  return bytes
}

function uint32 (value: number): Uint8Array {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
