import type { TrustedPeers } from '../../types'
import { compileRanges } from '../address/ranges'
import { checkHeaderName } from './header-name'
import type { Toa } from './toa'
import { checkObject, invalid, isWhole, quoted, show } from './values'

export type Setting = 'untrusted' | 'missing' | 'invalid' | 'unverified'
export type Settings = Readonly<Record<Setting, 'ignore' | 'reject' | 'believe'>>

const defaults: Settings = { untrusted: 'ignore', missing: 'ignore', invalid: 'reject', unverified: 'ignore' }
export const settings = Object.keys(defaults) as Setting[]

/** Peers by address; `unix` includes those of a listening Unix-domain socket. */
export interface PeerList {
  readonly addresses: ReadonlyArray<string>
  readonly unix: boolean
}

export interface ForwardedOptions {
  readonly trust: PeerList
  /** In lower case. */
  readonly header: string
}

export interface ProxyProtocolOptions {
  /** `undefined`: every trusted peer sends a header. */
  readonly from: PeerList | undefined
  /** For the whole header, in milliseconds. */
  readonly timeout: number
}

/** Copies and trims a list before it is checked, so that the checked copy is the one used. */
export function copyList (list: ReadonlyArray<unknown>): ReadonlyArray<string> {
  return Object.freeze([...list].map((entry) => typeof entry === 'string' ? entry.trim() : entry) as string[])
}

/** Checks `trustedPeers`. With `toa` it must be a list: clients can write TOA on their SYN too. */
export function checkTrustedPeers (value: unknown, { toa }: { readonly toa: Toa | undefined }): TrustedPeers {
  if (Array.isArray(value)) {
    const list = copyList(value)
    compileRanges(list, 'trustedPeers')
    return list
  }
  if (value === undefined || value === null) {
    throw invalid(`'trustedPeers' is ${value}: a missing setting must not disable the check. Write a list, [] ` +
      "to trust nobody, or 'any'; omit the option to check nothing")
  }
  if (typeof value === 'string' && value !== 'any') {
    throw invalid(`'trustedPeers' must be a list: write ${show(value.split(/[\s,]+/).filter((text) => text !== ''))}`)
  }
  if (value !== 'any' && typeof value !== 'function') {
    throw invalid(`'trustedPeers' must be a list of addresses and ranges, 'any', or a function, not ${show(value)}`)
  }
  if (toa !== undefined) throw needsList()
  return value as TrustedPeers
}

const needsList = (): Error =>
  invalid("'toa' needs a list of 'trustedPeers': clients can write TOA on their SYN too")

export function checkSettings (given: { readonly [Key in Setting]?: unknown }): Settings {
  const checked = { ...defaults } as Record<Setting, 'ignore' | 'reject' | 'believe'>
  for (const key of settings) {
    const value = given[key]
    if (value === undefined) continue
    const allowed = key === 'unverified' ? ['ignore', 'reject', 'believe'] : ['ignore', 'reject']
    if (!allowed.includes(value as string)) throw invalid(`'${key}' takes ${quoted(allowed)}, not ${show(value)}`)
    checked[key] = value as 'ignore'
  }
  return Object.freeze(checked)
}

export function checkForwarded (value: unknown): ForwardedOptions | undefined {
  if (value === undefined) return undefined
  const { trust, header = 'x-forwarded-for' } =
    checkObject(value, "'forwarded'", { trust: ['198.51.100.0/24'], header: 'x-forwarded-for' })
  return Object.freeze({ trust: checkForwardedTrust(trust), header: checkHeaderName(header) })
}

export const checkForwardedTrust = (trust: unknown): PeerList => checkPeerList(trust, 'forwarded.trust')

/** A list that may contain `'unix'`. */
function checkPeerList (value: unknown, option: string): PeerList {
  if (!Array.isArray(value)) throw invalid(`'${option}' must be a list of addresses and ranges, not ${show(value)}`)
  const list = copyList(value)
  const addresses = Object.freeze(list.filter((entry) => entry !== 'unix'))
  compileRanges(addresses, option)
  return Object.freeze({ addresses, unix: addresses.length < list.length })
}

// As Envoy and others, with a margin for slow links.
const HEADER_TIMEOUT = 5000
const TIMEOUT_MAX = 60_000

export function checkProxyProtocol (value: unknown = {}): ProxyProtocolOptions {
  const { from, timeout = HEADER_TIMEOUT } =
    checkObject(value, "'proxyProtocol'", { from: ['10.0.0.0/24'], timeout: HEADER_TIMEOUT })
  if (!isWhole(timeout, 1, TIMEOUT_MAX)) {
    throw invalid(`'proxyProtocol.timeout' must be a whole number of milliseconds from 1 to ${TIMEOUT_MAX}, not ` +
      show(timeout))
  }
  return Object.freeze({
    from: from === undefined ? undefined : checkPeerList(from, 'proxyProtocol.from'), timeout
  })
}
