import type { Address } from '../address/address'
import { compileRanges } from '../address/ranges'
import { AF_INET, AF_INET6 } from '../kernel/constants'
import type { MapDefinition } from './definitions'
import { maps, type MapName, programs, type ProgramName, rodata } from './programs'

/** A TOA format for the programs, which ignore its position among the options. */
export interface Format {
  readonly kind: number
  readonly length: number
  readonly family: 'IPv4' | 'IPv6'
}

/** What the programs are configured with. */
export interface Settings {
  readonly trustedPeers: 'any' | ReadonlyArray<string>
  readonly formats: ReadonlyArray<Format>
  readonly getpeername: boolean
}

/** The configuration of an attachment, stored in the kernel for `status`. */
export interface Description extends Settings {
  /** The version of this package. */
  readonly version: string
  /** The cgroup's path at the time of attaching. */
  readonly cgroup: string
  /** ISO 8601. */
  readonly attached: string
}

/** The formats of the vtoa document. */
export const documentFormats: ReadonlyArray<Format> = [
  { kind: 254, length: 8, family: 'IPv4' }, { kind: 253, length: 20, family: 'IPv6' }
]

// As in toa.bpf.c.
export const FORMATS_MAX = 8
const families = { IPv4: AF_INET, IPv6: AF_INET6 } as const
const FAMILY_BITS = 32

// <linux/bpf.h>
const BPF_MAP_TYPE_ARRAY = 2
const BPF_F_RDONLY_PROG = 1 << 7
const BPF_PSEUDO_MAP_FD = 1
const BPF_PSEUDO_MAP_VALUE = 2

const INSTRUCTION = 8
const readOnly = Buffer.from(rodata, 'base64')

/** The programs' read-only data, followed by the description. */
export function encodeConfig (
  errnoOfOwn: boolean, { trustedPeers, formats }: Settings, description: Description
): Buffer {
  const bytes = Buffer.from(readOnly)
  bytes[0] = Number(trustedPeers === 'any')
  bytes[1] = Number(errnoOfOwn)
  formats.forEach(({ kind, length, family }, i) => { bytes.set([kind, length, families[family]], 4 + 4 * i) })
  return Buffer.concat([bytes, Buffer.from(JSON.stringify(description))])
}

export function configMap (size: number): MapDefinition {
  return { type: BPF_MAP_TYPE_ARRAY, keySize: 4, valueSize: size, maxEntries: 1, flags: BPF_F_RDONLY_PROG }
}

/** `undefined` if another version wrote it in an unknown format. */
export function decodeDescription (config: Uint8Array): Description | undefined {
  try {
    return JSON.parse(Buffer.from(config).toString('utf8', readOnly.length))
  } catch {
    return undefined
  }
}

/** The keys of the trusted peers map, each a `struct peer`. */
export function encodePeers (trustedPeers: Settings['trustedPeers']): Buffer[] {
  if (trustedPeers === 'any') return []
  return compileRanges(trustedPeers, 'trustedPeers').list.map(({ first, last }) => {
    const key = Buffer.alloc(maps.peers.keySize)
    const words = wordsOf(first)
    const fixed = wordsOf(last).reduce((bits, word, i) => bits + Math.clz32(word ^ (words[i] as number)), 0)
    key.writeUInt32LE(FAMILY_BITS + fixed, 0)
    key.writeUInt32LE(families[first.family], 4)
    words.forEach((word, i) => { key.writeInt32BE(word | 0, 8 + 4 * i) })
    return key
  })
}

function wordsOf ({ family, w0, w1, w2, w3 }: Address): number[] {
  return family === 'IPv4' ? [w3] : [w0, w1, w2, w3]
}

/** A program's instructions with its map file descriptors filled in. */
export function linkProgram (name: ProgramName, fds: Readonly<Record<MapName | 'config', number>>): Buffer {
  const { instructions, relocations } = programs[name]
  const bytes = Buffer.from(instructions, 'base64')
  for (const [instruction, map] of relocations) {
    const at = instruction * INSTRUCTION
    const destination = (bytes[at + 1] as number) & 15
    if (map === 'config') {
      bytes[at + 1] = destination | BPF_PSEUDO_MAP_VALUE << 4
      // The second half of the instruction holds the offset within the value.
      bytes.writeInt32LE(bytes.readInt32LE(at + 4), at + INSTRUCTION + 4)
    } else {
      bytes[at + 1] = destination | BPF_PSEUDO_MAP_FD << 4
    }
    bytes.writeInt32LE(fds[map], at + 4)
  }
  return bytes
}

/**
 * Calls bpf_set_retval(), which tells whether programs may choose the errno (Linux 5.18): `r1 = 0; call; r0 = 1; exit`.
 */
export const setRetval =
  Buffer.from('b701000000000000' + '85000000bb000000' + 'b700000001000000' + '9500000000000000', 'hex')
