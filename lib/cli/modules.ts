import { existsSync } from 'node:fs'
import type { Seen } from './sighting'
import type { SegmentOption } from './segment-options'

/** The family of a listening socket and its connections: on `::` it is AF_INET6 for IPv4 clients too. */
export type SocketFamily = 'AF_INET' | 'AF_INET6'

/** What reads TOA in the kernel, as far as it is visible. */
export interface Loaded {
  /** `'or attach'` if 1348 answers, but no module vtoa is visible: it may be `attach`. */
  readonly vtoa: boolean | 'or attach'
  /** `'DPVS'` if getsockopt 4096 answers; no other module does. */
  readonly toa: boolean | 'DPVS'
  /** Whether getpeername(2) was seen rewritten, by a module or an eBPF program. */
  readonly rewrites: boolean
}

interface Reader {
  readonly module: 'vtoa' | 'toa'
  readonly by: string
  /** The socket families for which an option is read, by its kind and length. */
  readonly reads: Readonly<Record<string, ReadonlyArray<SocketFamily>>>
}

const both: ReadonlyArray<SocketFamily> = ['AF_INET', 'AF_INET6']
const ipv4: ReadonlyArray<SocketFamily> = ['AF_INET']
const ipv6: ReadonlyArray<SocketFamily> = ['AF_INET6']

const readers: ReadonlyArray<Reader> = [
  { module: 'vtoa', by: 'vtoa', reads: { '254/8': both, '253/20': ipv6, '252/20': ipv4, '249/40': both } },
  { module: 'toa', by: 'LVS', reads: { '254/8': both, '253/20': both } },
  // On AF_INET sockets 254/20 is read by 'nat64', which reports it itself.
  { module: 'toa', by: 'DPVS', reads: { '254/8': both, '254/20': both } },
  { module: 'toa', by: 'UCloud', reads: { '200/8': both, '254/8': both, '253/8': both } },
  { module: 'toa', by: 'Tencent', reads: { '200/8': both } },
  { module: 'toa', by: 'Huawei', reads: { '254/8': ipv4 } }
]

/** Remembers across connections what is known about the modules. */
export class Modules {
  #rewrites = false
  readonly #isLoaded: (name: string) => boolean

  constructor (isLoaded = (name: string) => existsSync(`/sys/module/${name}`)) {
    this.#isLoaded = isLoaded
  }

  /** The modules that are loaded now, by /sys/module and by the answers of a connection's sources. */
  look ({ transportPeer, sources }: Pick<Seen, 'transportPeer' | 'sources'>): Loaded {
    const answers = (name: string) =>
      sources.some((asked) => asked.source === name && !('reason' in asked && asked.reason === 'ENOPROTOOPT'))
    this.#rewrites ||= transportPeer !== null && sources.some((asked) =>
      asked.source === 'getpeername' && 'address' in asked && asked.address !== transportPeer.address)
    return {
      vtoa: this.#isLoaded('vtoa') || (answers('vtoa') && 'or attach'),
      toa: answers('nat64') ? 'DPVS' : this.#isLoaded('toa'),
      rewrites: this.#rewrites
    }
  }
}

export const isAnyLoaded = ({ vtoa, toa, rewrites }: Loaded): boolean => vtoa !== false || toa !== false || rewrites

const socketsOf = {
  AF_INET: 'listeners on an IPv4 address, such as 0.0.0.0',
  AF_INET6: 'listeners on an IPv6 address, such as ::'
} as const

/**
 * Why they returned nothing for a connection with this TOA; `undefined` if none is known to be loaded.
 */
export function explainUnread (
  { kind, length }: SegmentOption, { vtoa, toa }: Loaded, listener: SocketFamily
): string | undefined {
  const format = `${kind}/${length}`
  if (vtoa === 'or attach') {
    return `TOA ${format} was sent, but getsockopt 1348 returned nothing. vtoa or attach answers it: with attach, ` +
      'compare --toa and --trusted-peers (sudo fastify-real-ip status).'
  }
  const loaded = readers.filter(({ module, by }) => module === 'vtoa' ? vtoa : toa === true || toa === by)
  if (loaded.length === 0) return undefined
  const names = loaded.map(({ module, by }) => toa === by ? `the toa module of ${by}` : `the module ${module}`)
  const modules = [...new Set(names)].join(' and ')
  const able = loaded.filter(({ reads }) => format in reads)
  if (able.length === 0) {
    return `TOA ${format} was sent, but ${modules} is not known to read it: ${listFormats(loaded)}.`
  }
  const there = able.filter(({ reads }) => reads[format]?.includes(listener))
  const other = listener === 'AF_INET' ? 'AF_INET6' : 'AF_INET'
  if (there.length === 0) {
    return `TOA ${format} was sent, but ${modules} reads it only for ${socketsOf[other]}: ` +
      `run watch again with --host ${other === 'AF_INET' ? '0.0.0.0' : '::'}.`
  }
  const elsewhere = able.filter((reader) => !there.includes(reader))
  const others = loaded.filter((reader) => !able.includes(reader))
  return `TOA ${format} was sent, but ${modules} returned nothing. On this listener it is read by ${listNames(there)}` +
    (elsewhere.length === 0 ? '' : `; by ${listNames(elsewhere)} only for ${socketsOf[other]}`) +
    (others.length === 0 ? '' : `; not by ${listNames(others)}`) + '.'
}

const listNames = (readers: ReadonlyArray<Reader>): string => readers.map(({ by }) => by).join(', ')

const listFormats = (loaded: ReadonlyArray<Reader>): string =>
  loaded.map(({ by, reads }) => `${by} reads ${Object.keys(reads).join(', ')}`).join('; ')
