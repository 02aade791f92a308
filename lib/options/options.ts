import type { FastifyRealIpOptions, KernelSource, RealAddress, ToaFormat, TrustedPeers } from '../../types'
import { compileRanges } from '../address/ranges'
import { checkHeaderName } from './header-name'
import { checkLogOptions, type LogOptions } from './log'
import { toaPresets } from './toa'
import { checkObject, invalid, isWhole, quoted, show } from './values'
import type { Setting, Settings } from '../trust/table'

/** The checked options, frozen. Plain values: two of them can be compared. */
export interface Options {
  readonly sources: ReadonlyArray<KernelSource> | 'auto'
  readonly require: boolean
  readonly toa: Toa | undefined
  readonly virtualServer: boolean
  /** undefined: no policy. */
  readonly trustedPeers: TrustedPeers | undefined
  readonly settings: Settings
  readonly forwarded: ForwardedOptions | undefined
  readonly admit: ((address: RealAddress) => boolean) | undefined
  readonly bindLogger: LogOptions | undefined
}

export interface ForwardedOptions {
  readonly trust: ReadonlyArray<string>
  /** In lower case. */
  readonly header: string
}

/** What a balancer writes on the SYN; `silentOnSyn` says why it writes nothing there. */
export interface Toa {
  readonly formats: ReadonlyArray<ToaFormat>
  readonly silentOnSyn?: string
}

/** All sources, in the order in which 'auto' tries them. */
export const kernelSources: ReadonlyArray<KernelSource> = Object.freeze(['vtoa', 'nat64', 'getpeername', 'saved-syn'])
const defaultSources: ReadonlyArray<KernelSource> = Object.freeze(['vtoa', 'getpeername'])

const defaults = { untrusted: 'ignore', missing: 'ignore', invalid: 'reject', unverified: 'ignore' } as const
const settings = Object.keys(defaults) as Setting[]
const known = ['sources', 'require', 'toa', 'virtualServer', 'trustedPeers', ...settings, 'forwarded', 'admit', 'bindLogger']
// Fastify's own options of register(), which reach the plugin too.
const fastifyOptions = ['prefix', 'logLevel', 'logSerializers', 'encapsulate']

export function checkOptions (given: FastifyRealIpOptions): Options {
  for (const key of Object.keys(given)) {
    if (!known.includes(key) && !fastifyOptions.includes(key)) {
      throw invalid(`there is no option '${key}'; the options are ${quoted(known)}`)
    }
  }
  const trustedPeers = 'trustedPeers' in given ? checkTrustedPeers(given.trustedPeers) : undefined
  if (trustedPeers === undefined) {
    for (const key of [...settings, 'forwarded', 'toa'] as const) {
      if (given[key] !== undefined) throw invalid(`'${key}' needs 'trustedPeers', which says whom to believe`)
    }
  }
  const sources = checkSources(given.sources)
  const toa = checkToa(given.toa)
  if (sources.includes('saved-syn')) {
    if (toa === undefined) {
      throw invalid("'saved-syn' needs 'toa', what the balancer writes on the SYN: 'alibaba', 'ucloud', 'tencent', or " +
        "formats like [{ kind: 254, length: 8, family: 'IPv4', position: 'first' }]")
    }
    if (toa.silentOnSyn !== undefined) throw invalid(`'saved-syn' cannot be used with this 'toa': ${toa.silentOnSyn}`)
  }
  if (toa !== undefined) checkList(trustedPeers)
  return Object.freeze({
    sources,
    require: checkFlag('require', given.require),
    toa,
    virtualServer: checkFlag('virtualServer', given.virtualServer),
    trustedPeers,
    settings: checkSettings(given),
    forwarded: checkForwarded(given.forwarded),
    admit: checkAdmit(given.admit),
    bindLogger: checkBindLogger(given.bindLogger)
  })
}

function checkSources (sources: unknown): ReadonlyArray<KernelSource> | 'auto' {
  if (sources === undefined) return defaultSources
  if (sources === 'auto') return sources
  if (!Array.isArray(sources) || sources.length === 0) {
    throw invalid(`'sources' must be 'auto' or a list of at least one of ${quoted(kernelSources)}, not ${show(sources)}`)
  }
  for (const source of sources) {
    if (!kernelSources.includes(source)) {
      const hint = source === 'peer' ? "; 'peer' is always the last resort and is not written" : ''
      throw invalid(`'sources' takes ${quoted(kernelSources)}, not ${show(source)}${hint}`)
    }
  }
  if (new Set(sources).size !== sources.length) {
    throw invalid(`'sources' names a source twice: ${show(sources)}; name each once`)
  }
  return Object.freeze([...sources])
}

function checkFlag (name: string, value: unknown): boolean {
  if (value === undefined) return false
  if (typeof value !== 'boolean') throw invalid(`'${name}' must be true or false, not ${show(value)}`)
  return value
}

function checkToa (value: unknown): Toa | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'string' && Object.hasOwn(toaPresets, value)) return toaPresets[value as keyof typeof toaPresets]
  if (!Array.isArray(value) || value.length === 0) {
    throw invalid(`'toa' takes ${quoted(Object.keys(toaPresets))}, or a list of formats like ` +
      `{ kind: 254, length: 8, family: 'IPv4', position: 'first' }, not ${show(value)}`)
  }
  return Object.freeze({ formats: Object.freeze(value.map(checkFormat)) })
}

function checkFormat (value: unknown): ToaFormat {
  const { kind, length, family, position, ...rest } = (value ?? {}) as { [key: string]: unknown }
  const wrong = (why: string) => invalid(`'toa' has ${show(value)}: ${why}`)
  const [stranger] = Object.keys(rest)
  if (stranger !== undefined) throw wrong(`a format has no '${stranger}'; it has 'kind', 'length', 'family', 'position'`)
  if (!isWhole(kind, 2, 254)) throw wrong("'kind' must be the option's number, 2 to 254")
  if (family !== 'IPv4' && family !== 'IPv6') throw wrong("'family' takes 'IPv4', 'IPv6'")
  if (!isWhole(length, family === 'IPv4' ? 8 : 20, 40)) {
    throw wrong(`'length' must be the option's size in bytes with both header bytes, ${family === 'IPv4' ? 8 : 20} to 40`)
  }
  if (position !== 'first' && position !== 'last') throw wrong("'position' takes 'first', 'last'")
  return Object.freeze({ kind, length, family, position } as ToaFormat)
}

/** Throws where TOA on the SYN would be read from a peer that no list names. */
export function checkList (trustedPeers: TrustedPeers | undefined): void {
  if (!Array.isArray(trustedPeers)) {
    throw invalid("'toa' needs a list of 'trustedPeers': a client can write TOA on its SYN as well as a balancer can")
  }
}

export function checkTrustedPeers (value: unknown): TrustedPeers {
  if (value === 'any' || typeof value === 'function') return value as TrustedPeers
  if (value === undefined || value === null) {
    throw invalid(`'trustedPeers' is ${value}: a setting that got lost must not open the door. ` +
      "Write a list, [] to trust nobody, or 'any'; leave the option out to check nothing")
  }
  if (typeof value === 'string') {
    throw invalid(`'trustedPeers' must be a list: write ${show(value.split(/[\s,]+/).filter((text) => text !== ''))}`)
  }
  if (!Array.isArray(value)) {
    throw invalid(`'trustedPeers' must be a list of addresses and ranges, 'any', or a function, not ${show(value)}`)
  }
  compileRanges(value, 'trustedPeers')
  return Object.freeze([...value])
}

function checkSettings (given: FastifyRealIpOptions): Options['settings'] {
  const checked = { ...defaults } as Record<Setting, 'ignore' | 'reject' | 'believe'>
  for (const key of settings) {
    const value: unknown = given[key]
    if (value === undefined) continue
    const allowed = key === 'unverified' ? ['ignore', 'reject', 'believe'] : ['ignore', 'reject']
    if (!allowed.includes(value as string)) throw invalid(`'${key}' takes ${quoted(allowed)}, not ${show(value)}`)
    checked[key] = value as 'ignore'
  }
  return Object.freeze(checked)
}

function checkForwarded (value: unknown): ForwardedOptions | undefined {
  if (value === undefined) return undefined
  if (typeof value !== 'object' || value === null) {
    throw invalid(`'forwarded' must be an object like { trust: ['198.51.100.0/24'], header: 'x-forwarded-for' }, not ${show(value)}`)
  }
  const { trust, header = 'x-forwarded-for', ...rest } = value as { trust?: unknown, header?: unknown }
  const [stranger] = Object.keys(rest)
  if (stranger !== undefined) throw invalid(`'forwarded' has no '${stranger}'; it has 'trust' and 'header'`)
  if (!Array.isArray(trust)) throw invalid(`'forwarded.trust' must be a list of addresses and ranges, not ${show(trust)}`)
  compileRanges(trust, 'forwarded.trust')
  return Object.freeze({ trust: Object.freeze([...trust]), header: checkHeaderName(header) })
}

function checkAdmit (value: unknown): Options['admit'] {
  if (value !== undefined && typeof value !== 'function') {
    throw invalid(`'admit' must be a function that returns true for a connection to keep, not ${show(value)}`)
  }
  return value as Options['admit']
}

function checkBindLogger (value: unknown): LogOptions | undefined {
  if (value === undefined || value === false) return undefined
  if (value === true) return checkLogOptions({}, "'bindLogger'")
  if (typeof value === 'object' && value !== null) return checkLogOptions(value, "'bindLogger'")
  throw invalid(`'bindLogger' must be true, false, or an object like { names: 'opentelemetry' }, not ${show(value)}`)
}

/** The length of the prefix that is one client's, in bits. */
export function checkRealIpKeyOptions (given: unknown): number {
  const { ipv6Subnet = 64 } = checkObject(given, "realIpKey()'s options", { ipv6Subnet: 64 })
  if (!isWhole(ipv6Subnet, 1, 128)) {
    throw invalid("'ipv6Subnet' must be a whole number from 1 to 128, the bits of the prefix that all addresses of a client " +
      `share, not ${show(ipv6Subnet)}; 64 is what most networks hand out`)
  }
  return ipv6Subnet
}
