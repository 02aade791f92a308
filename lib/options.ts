import type { FastifyRealIpOptions, KernelSource, RealAddress, TrustedPeers } from '../types'
import { FST_REAL_IP_INVALID_OPTION } from './errors'
import { compileRanges } from './ranges'
import type { Setting } from './trust'

/** The checked options, frozen. Plain values: two of them can be compared. */
export interface Options {
  readonly sources: ReadonlyArray<KernelSource>
  readonly require: boolean
  /** undefined: no policy. */
  readonly trustedPeers: TrustedPeers | undefined
  readonly settings: Readonly<Record<Setting, 'ignore' | 'reject' | 'believe'>>
  readonly forwarded: ForwardedOptions | undefined
  readonly admit: ((address: RealAddress) => boolean) | undefined
}

export interface ForwardedOptions {
  readonly trust: ReadonlyArray<string>
  readonly header: 'x-forwarded-for' | 'forwarded'
}

export const kernelSources: ReadonlyArray<KernelSource> = Object.freeze(['vtoa', 'getpeername'])

const defaults = { untrusted: 'ignore', missing: 'ignore', invalid: 'reject', unverified: 'ignore' } as const
const settings = Object.keys(defaults) as Setting[]
const known = ['sources', 'require', 'trustedPeers', ...settings, 'forwarded', 'admit']
// Fastify's own options of register(), which reach the plugin too.
const fastifyOptions = ['prefix', 'logLevel', 'logSerializers', 'encapsulate']

const quoted = (names: ReadonlyArray<string>) => names.map((name) => `'${name}'`).join(', ')
const invalid = (message: string) => new FST_REAL_IP_INVALID_OPTION(message)

export function checkOptions (given: FastifyRealIpOptions): Options {
  for (const key of Object.keys(given)) {
    if (!known.includes(key) && !fastifyOptions.includes(key)) {
      throw invalid(`there is no option '${key}'; the options are ${quoted(known)}`)
    }
  }
  const trustedPeers = 'trustedPeers' in given ? checkTrustedPeers(given.trustedPeers) : undefined
  if (trustedPeers === undefined) {
    for (const key of [...settings, 'forwarded'] as const) {
      if (given[key] !== undefined) throw invalid(`'${key}' needs 'trustedPeers', which says whom to believe`)
    }
  }
  return Object.freeze({
    sources: checkSources(given.sources),
    require: checkRequire(given.require),
    trustedPeers,
    settings: checkSettings(given),
    forwarded: checkForwarded(given.forwarded),
    admit: checkAdmit(given.admit)
  })
}

function checkSources (sources: unknown): ReadonlyArray<KernelSource> {
  if (sources === undefined) return kernelSources
  if (!Array.isArray(sources) || sources.length === 0) {
    throw invalid(`'sources' must be a list of at least one of ${quoted(kernelSources)}, not ${show(sources)}`)
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

function checkRequire (value: unknown): boolean {
  if (value === undefined) return false
  if (typeof value !== 'boolean') throw invalid(`'require' must be true or false, not ${show(value)}`)
  return value
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
  if (header !== 'x-forwarded-for' && header !== 'forwarded') {
    throw invalid(`'forwarded.header' takes 'x-forwarded-for', 'forwarded', not ${show(header)}`)
  }
  compileRanges(trust, 'forwarded.trust')
  return Object.freeze({ trust: Object.freeze([...trust]), header })
}

function checkAdmit (value: unknown): Options['admit'] {
  if (value !== undefined && typeof value !== 'function') {
    throw invalid(`'admit' must be a function that returns true for a connection to keep, not ${show(value)}`)
  }
  return value as Options['admit']
}

function show (value: unknown): string {
  try {
    return JSON.stringify(value) ?? String(value)
  } catch {
    return typeof value
  }
}
