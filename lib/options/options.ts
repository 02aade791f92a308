import type { FastifyRealIpOptions, KernelSource, RealAddress, ToaFormat, TrustedPeers } from '../../types'
import { checkLogOptions, type LogOptions } from './log'
import { leastLength, type Toa, toaPresets } from './toa'
import {
  checkForwarded, checkProxyProtocol, checkSettings, checkTrustedPeers, type ForwardedOptions,
  type ProxyProtocolOptions, settings, type Settings
} from './trust'
import { checkFlag, checkObject, invalid, isWhole, nearest, ownOf, quoted, show } from './values'

/** Checked options, frozen. Plain values, so that two registrations can be compared. */
export interface Options {
  readonly sources: ReadonlyArray<KernelSource> | 'auto'
  /** `undefined`: 'proxy-protocol' is not among the sources. */
  readonly proxyProtocol: ProxyProtocolOptions | undefined
  readonly require: boolean
  readonly toa: Toa | undefined
  readonly virtualServer: boolean
  /** `undefined`: no policy. */
  readonly trustedPeers: TrustedPeers | undefined
  /** `forwarded` without `trustedPeers`: no kernel source is asked. */
  readonly forwardedOnly: boolean
  readonly settings: Settings
  readonly forwarded: ForwardedOptions | undefined
  readonly admit: ((address: RealAddress) => boolean) | undefined
  /** Whether this plugin replaces `request.ip` and related properties. */
  readonly overrideRequest: boolean
  readonly bindLogger: LogOptions | undefined
}

/** All kernel sources, in the order in which 'auto' tries them. */
export const kernelSources: ReadonlyArray<KernelSource> = Object.freeze(['vtoa', 'nat64', 'getpeername', 'saved-syn'])
const allSources = [...kernelSources, 'proxy-protocol'] as const
const defaultSources: ReadonlyArray<KernelSource> = Object.freeze(['vtoa', 'getpeername'])

const known = [
  'sources', 'require', 'toa', 'virtualServer', 'trustedPeers', ...settings, 'proxyProtocol', 'forwarded',
  'overrideRequest', 'admit', 'bindLogger'
] as const
// Fastify's own options of register(), and what @fastify/autoload and fastify-cli pass to plugins.
const foreign = ['prefix', 'logLevel', 'logSerializers', 'encapsulate', 'autoConfig', 'skipOverride']

/**
 * Checks the own properties of `given`. Throws FST_REAL_IP_INVALID_OPTION, also for unknown options that resemble a
 * known one; reports other unknown options to `onUnknown`.
 */
export function checkOptions (given: FastifyRealIpOptions, onUnknown: (name: string) => void = () => {}): Options {
  const own = ownOf(given, known)
  for (const key of Object.keys(own)) {
    if ((known as ReadonlyArray<string>).includes(key) || foreign.includes(key)) continue
    const meant = nearest(key, known)
    if (meant !== undefined) {
      throw invalid(`there is no option '${key}': did you mean '${meant}'? The options are ${quoted(known)}`)
    }
    onUnknown(key)
  }
  const forwarded = checkForwarded(own.forwarded)
  const toa = checkToa(own.toa)
  const hasPeers = 'trustedPeers' in own
  const forwardedOnly = !hasPeers && forwarded !== undefined
  const nobody = forwardedOnly ? Object.freeze([]) : undefined
  const trustedPeers = hasPeers ? checkTrustedPeers(own.trustedPeers, { toa }) : nobody
  if (!hasPeers) {
    for (const key of [...settings, 'toa', 'proxyProtocol'] as const) {
      if (own[key] !== undefined) throw invalid(`'${key}' needs 'trustedPeers', the peers to believe`)
    }
    if (forwardedOnly && own.sources !== undefined) {
      throw invalid("'sources' with 'forwarded' needs 'trustedPeers', the peers whose TOA is believed; if there is " +
        "no TOA, remove 'sources'")
    }
  }
  const { sources, isProxyProtocol } = checkSources(own.sources)
  if (isProxyProtocol && !hasPeers) {
    throw invalid("the source 'proxy-protocol' needs 'trustedPeers', the peers whose header is believed")
  }
  if (!isProxyProtocol && own.proxyProtocol !== undefined) {
    throw invalid("'proxyProtocol' needs the source 'proxy-protocol': write sources: ['proxy-protocol']")
  }
  if (isProxyProtocol && own.unverified === 'believe') {
    throw invalid("'unverified' cannot be 'believe' with 'proxy-protocol': a header is read only if its sender is " +
      'known')
  }
  if (sources.includes('saved-syn')) checkSavedSyn(toa)
  return Object.freeze({
    sources: forwardedOnly ? Object.freeze([]) : sources,
    proxyProtocol: isProxyProtocol ? checkProxyProtocol(own.proxyProtocol) : undefined,
    require: checkFlag('require', own.require),
    toa,
    virtualServer: checkFlag('virtualServer', own.virtualServer),
    trustedPeers,
    forwardedOnly,
    settings: checkSettings(own),
    forwarded,
    admit: checkAdmit(own.admit),
    overrideRequest: checkFlag('overrideRequest', own.overrideRequest),
    bindLogger: checkBindLogger(own.bindLogger)
  })
}

function checkSources (sources: unknown): { sources: Options['sources'], isProxyProtocol: boolean } {
  if (sources === undefined) return { sources: defaultSources, isProxyProtocol: false }
  if (sources === 'auto') return { sources, isProxyProtocol: false }
  if (!Array.isArray(sources) || sources.length === 0) {
    throw invalid(`'sources' must be 'auto' or a list of at least one of ${quoted(allSources)}, not ${show(sources)}`)
  }
  const list = [...sources]
  for (const source of list) {
    if (!allSources.includes(source)) {
      const hint = source === 'peer' ? "; 'peer' is always the last resort and cannot be listed" : ''
      throw invalid(`'sources' takes ${quoted(allSources)}, not ${show(source)}${hint}`)
    }
  }
  if (new Set(list).size !== list.length) throw invalid(`'sources' names a source twice: ${show(list)}; name each once`)
  const kernel = list.filter((source) => source !== 'proxy-protocol') as KernelSource[]
  return { sources: Object.freeze(kernel), isProxyProtocol: kernel.length < list.length }
}

function checkSavedSyn (toa: Toa | undefined): void {
  if (toa === undefined) {
    throw invalid("'saved-syn' needs 'toa', what the balancer writes on the SYN: 'alibaba', 'ucloud', 'tencent', or " +
      "formats like [{ kind: 254, length: 8, family: 'IPv4', position: 'first' }]. If the balancer writes no TOA on " +
      "the SYN, run fastify-real-ip attach, and use 'vtoa'")
  }
  if (toa.silentOnSyn !== undefined) throw invalid(`'saved-syn' cannot be used with this 'toa': ${toa.silentOnSyn}`)
}

function checkToa (value: unknown): Toa | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'string' && Object.hasOwn(toaPresets, value)) return toaPresets[value as keyof typeof toaPresets]
  if (!Array.isArray(value) || value.length === 0) {
    throw invalid(`'toa' takes ${quoted(Object.keys(toaPresets))}, or a list of formats like { kind: 254, length: 8, ` +
      `family: 'IPv4', position: 'first' }, not ${show(value)}`)
  }
  return Object.freeze({ formats: Object.freeze([...value].map(checkFormat)) })
}

const formatKeys = ['kind', 'length', 'family', 'position'] as const

function checkFormat (value: unknown): ToaFormat {
  const { kind, length, family, position, ...rest } =
    ownOf(typeof value === 'object' && value !== null ? value : {}, formatKeys)
  const wrong = (why: string) => invalid(`'toa' has ${show(value)}: ${why}`)
  const [unknownKey] = Object.keys(rest)
  if (unknownKey !== undefined) {
    throw wrong(`a format has no '${unknownKey}'; it has 'kind', 'length', 'family', 'position'`)
  }
  if (!isWhole(kind, 2, 254)) throw wrong("'kind' must be the option's number, 2 to 254")
  if (family !== 'IPv4' && family !== 'IPv6') throw wrong("'family' takes 'IPv4', 'IPv6'")
  const least = leastLength[family]
  if (!isWhole(length, least, 40)) {
    throw wrong(`'length' must be the option's size in bytes, including both header bytes, ${least} to 40`)
  }
  if (position !== 'first' && position !== 'last') throw wrong("'position' takes 'first', 'last'")
  return Object.freeze({ kind, length, family, position } as ToaFormat)
}

function checkAdmit (value: unknown): Options['admit'] {
  if (value !== undefined && typeof value !== 'function') {
    throw invalid(`'admit' must be a function that returns true to accept a connection, not ${show(value)}`)
  }
  return value as Options['admit']
}

function checkBindLogger (value: unknown): LogOptions | undefined {
  if (value === undefined || value === false) return undefined
  if (value === true) return checkLogOptions({}, "'bindLogger'")
  if (typeof value === 'object' && value !== null) return checkLogOptions(value, "'bindLogger'")
  throw invalid(`'bindLogger' must be true, false, or an object like { names: 'opentelemetry' }, not ${show(value)}`)
}

/** The length in bits of one client's IPv6 prefix. Throws FST_REAL_IP_INVALID_OPTION. */
export function checkRealIpKeyOptions (given: unknown): number {
  const { ipv6Subnet = 64 } = checkObject(given, "realIpKey()'s options", { ipv6Subnet: 64 })
  if (!isWhole(ipv6Subnet, 1, 128)) {
    throw invalid("'ipv6Subnet' must be a whole number from 1 to 128, the prefix length of one client's addresses, " +
      `not ${show(ipv6Subnet)}; most networks assign a /64`)
  }
  return ipv6Subnet
}
