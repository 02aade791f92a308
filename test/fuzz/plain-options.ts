import fc from 'fast-check'
import { toaPresets } from '../../lib/options/toa'
import { plainRange } from '../address/plain-ranges'

// Options of any shape, and a second implementation of what the README and types/index.d.ts say of them.

export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }
type Given = Readonly<Record<string, unknown>>

const cyclic: { self?: unknown } = {}
cyclic.self = cyclic
const specials: Readonly<Record<string, unknown>> = {
  undefined,
  function: () => true,
  symbol: Symbol('x'),
  bigint: 10n,
  NaN,
  infinity: Infinity,
  hostile: { toJSON () { throw new Error('hostile') } },
  cyclic,
  bare: Object.create(null)
}
const special = (name: string): Json => ({ $: name })

/** What the JSON stands for, with { "$": "undefined" } and the like in place of what JSON has no word for. */
export function revive (value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(revive)
  if ('$' in value) return specials[String(value.$)]
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, revive(each)]))
}

const trimmed = (entry: unknown) => typeof entry === 'string' ? entry.trim() : entry
const isRange = (entry: unknown) => plainRange(trimmed(entry)) !== undefined
const isList = (value: unknown): value is unknown[] => Array.isArray(value) && value.every(isRange)
const isPeerList = (value: unknown): value is unknown[] => Array.isArray(value) && value.every((entry) => trimmed(entry) === 'unix' || isRange(entry))
const peerList = (value: unknown[]) => {
  const entries = value.map(trimmed)
  return { addresses: entries.filter((entry) => entry !== 'unix'), unix: entries.includes('unix') }
}
const isOneOf = (...values: unknown[]) => (value: unknown) => values.includes(value)
const optional = (rule: (value: unknown) => boolean) => (value: unknown) => value === undefined || rule(value)
const isObject = (rules: Readonly<Record<string, (value: unknown) => boolean>>) => (value: unknown): value is Given =>
  typeof value === 'object' && value !== null && Object.keys(value).every((key) => Object.keys(rules).includes(key)) &&
  Object.entries(rules).every(([key, rule]) => rule((value as Given)[key]))
const isWhole = (least: number, most: number) => (value: unknown) => Number.isInteger(value) && value as number >= least && value as number <= most
const isFunction = (value: unknown) => typeof value === 'function'

const isSource = isOneOf('vtoa', 'nat64', 'getpeername', 'saved-syn', 'proxy-protocol')
const isFormat = (value: unknown) => ['IPv4', 'IPv6'].some((family, i) =>
  isObject({ kind: isWhole(2, 254), length: isWhole(i === 0 ? 8 : 20, 40), family: isOneOf(family), position: isOneOf('first', 'last') })(value))
// RFC 9110 §5.6.2; the names that cannot hold an address are few.
const isHeader = (value: unknown) => typeof value === 'string' && /^[\w!#$%&'*+.^`|~-]+$/.test(value) &&
  !isOneOf('connection', 'host', 'cookie')(value.toLowerCase())
const isMask = isObject({ ipv4: optional(isWhole(0, 32)), ipv6: optional(isWhole(0, 128)) })
const ignoreOrReject = optional(isOneOf('ignore', 'reject'))
const needTrustedPeers = ['untrusted', 'missing', 'invalid', 'unverified', 'toa', 'proxyProtocol'] as const

const rules: Readonly<Record<string, (value: unknown) => boolean>> = {
  sources: optional((value) => value === 'auto' ||
    (Array.isArray(value) && value.length > 0 && value.every(isSource) && new Set(value).size === value.length)),
  require: optional(isOneOf(true, false)),
  toa: optional((value) => isOneOf('alibaba', 'ucloud', 'tencent', 'dpvs')(value) || (Array.isArray(value) && value.length > 0 && value.every(isFormat))),
  virtualServer: optional(isOneOf(true, false)),
  trustedPeers: optional((value) => value === 'any' || isFunction(value) || isList(value)),
  untrusted: ignoreOrReject,
  missing: ignoreOrReject,
  invalid: ignoreOrReject,
  unverified: optional(isOneOf('ignore', 'reject', 'believe')),
  proxyProtocol: optional(isObject({ from: optional(isPeerList), timeout: optional(isWhole(1, 60_000)) })),
  forwarded: optional(isObject({ trust: isPeerList, header: optional(isHeader) })),
  overrideRequest: optional(isOneOf(true, false)),
  admit: optional(isFunction),
  bindLogger: optional((value) => typeof value === 'boolean' || isObject({ names: optional(isOneOf('plain', 'opentelemetry')), mask: optional(isMask) })(value))
}
const foreign = ['prefix', 'logLevel', 'logSerializers', 'encapsulate', 'autoConfig', 'skipOverride']

/** Whether a text becomes another where so many letters are added, removed or replaced. */
function isNear (a: string, b: string, letters: number): boolean {
  if (letters < 0) return false
  if (a === '' || b === '') return a.length + b.length <= letters
  if (a[0] === b[0]) return isNear(a.slice(1), b.slice(1), letters)
  return isNear(a.slice(1), b, letters - 1) || isNear(a, b.slice(1), letters - 1) || isNear(a.slice(1), b.slice(1), letters - 1)
}

/** Whether somebody meant one of the options: but for a third of its letters, and two at most, case and signs aside. */
function isMisspelt (key: string): boolean {
  const letters = (text: string) => text.toLowerCase().replace(/[^a-z]/g, '')
  return Object.keys(rules).some((name) => isNear(letters(key), letters(name), Math.min(2, Math.floor(name.length / 3))))
}

/** The checked options; undefined where registering must fail. */
export function plainOptions (given: Given): Given | undefined {
  const known = Object.fromEntries(Object.entries(given).filter(([key]) => Object.hasOwn(rules, key))) as Given
  if (Object.keys(given).some((key) => !Object.hasOwn(rules, key) && !foreign.includes(key) && isMisspelt(key))) return undefined
  if (!isObject(rules)(known)) return undefined
  const { sources = ['vtoa', 'getpeername'], trustedPeers, toa, forwarded, bindLogger, proxyProtocol, unverified } = known as {
    sources?: string | string[], trustedPeers?: unknown, toa?: keyof typeof toaPresets | unknown[], forwarded?: Given, bindLogger?: boolean | Given, proxyProtocol?: Given, unverified?: string
  }
  // A list that got lost must not open the door.
  if ('trustedPeers' in known ? trustedPeers === undefined : needTrustedPeers.some((key) => known[key] !== undefined)) return undefined
  if (toa !== undefined && !Array.isArray(trustedPeers)) return undefined
  if (sources.includes('saved-syn') && (toa === undefined || toa === 'dpvs')) return undefined
  // Only whoever is said to be believed may speak the PROXY protocol.
  const isProxyProtocol = sources.includes('proxy-protocol')
  if (isProxyProtocol ? trustedPeers === undefined || unverified === 'believe' : proxyProtocol !== undefined) return undefined
  // With a header alone nobody's TOA is believed, and no source is asked.
  const forwardedOnly = trustedPeers === undefined && forwarded !== undefined
  if (forwardedOnly && known.sources !== undefined) return undefined
  return {
    sources: forwardedOnly ? [] : Array.isArray(sources) ? sources.filter((source) => source !== 'proxy-protocol') : sources,
    proxyProtocol: isProxyProtocol ? { from: proxyProtocol?.from && peerList(proxyProtocol.from as unknown[]), timeout: proxyProtocol?.timeout ?? 5000 } : undefined,
    require: known.require ?? false,
    toa: typeof toa === 'string' ? toaPresets[toa] : toa && { formats: toa },
    virtualServer: known.virtualServer ?? false,
    trustedPeers: forwardedOnly ? [] : Array.isArray(trustedPeers) ? trustedPeers.map(trimmed) : trustedPeers,
    forwardedOnly,
    settings: {
      untrusted: known.untrusted ?? 'ignore',
      missing: known.missing ?? 'ignore',
      invalid: known.invalid ?? 'reject',
      unverified: known.unverified ?? 'ignore'
    },
    forwarded: forwarded && { trust: peerList(forwarded.trust as unknown[]), header: String(forwarded.header ?? 'x-forwarded-for').toLowerCase() },
    overrideRequest: known.overrideRequest ?? false,
    admit: known.admit,
    bindLogger: typeof bindLogger === 'object' || bindLogger === true ? plainLogOptions(bindLogger === true ? {} : bindLogger) : undefined
  }
}

function plainLogOptions ({ names, mask }: Given): Given {
  const { ipv4, ipv6 } = (mask ?? {}) as Given
  return { names: names ?? 'plain', mask: mask && { ipv4: ipv4 ?? 24, ipv6: ipv6 ?? 48 } }
}

const entries: readonly Json[] = ['10.0.0.0/8', 'fd00::/8', ' 192.0.2.1\t', '::ffff:10.0.0.0/104', 'loopback']
const rightFormats: readonly Json[] = [
  { kind: 254, length: 8, family: 'IPv4', position: 'first' }, { kind: 253, length: 20, family: 'IPv6', position: 'last' }
]
const rightValues: Readonly<Record<string, readonly Json[]>> = {
  sources: ['auto', ['vtoa'], ['saved-syn'], ['getpeername', 'vtoa'], ['nat64', 'saved-syn'], ['proxy-protocol'], ['getpeername', 'proxy-protocol']],
  proxyProtocol: [{}, { from: ['10.0.0.0/8', 'unix'] }, { from: [], timeout: 1 }, { timeout: 60000 }],
  require: [true, false],
  toa: ['alibaba', 'ucloud', 'tencent', 'dpvs', rightFormats, rightFormats.slice(1)],
  virtualServer: [true, false],
  untrusted: ['ignore', 'reject'],
  missing: ['ignore', 'reject'],
  invalid: ['ignore', 'reject'],
  unverified: ['ignore', 'reject', 'believe'],
  forwarded: [{ trust: ['10.0.0.0/8'] }, { trust: [], header: 'forwarded' }, { trust: ['loopback', 'unix'], header: 'x-forwarded-for' }, { trust: [], header: 'CF-Connecting-IP' }],
  admit: [special('function')],
  bindLogger: [true, false, {}, { names: 'plain' }, { names: 'opentelemetry' }, { mask: {} }, { mask: { ipv4: 24 }, names: 'plain' }],
  prefix: ['/x']
}
const wrongValues: readonly Json[] = [
  null, 0, 1, -1, 7, 8, 20, 40, 41, 254, 255, 1.5, '', 'any', 'x', 'vtoa', 'peer', 'believe', '10.0.0.1/8', '10.0.0.0/8, fd00::/8', 'first', 'IPv4', '::/0', 'toString',
  '__proto__', 'connection', 'Host', 'x y', 'fe80::1%eth0', '::ffff:10.0.0.0/95', [], {}, [[]], [null], [{}], ...Object.keys(specials).map(special)
]
const pool: readonly Json[] = [...wrongValues, ...entries, ...rightFormats, ...Object.values(rightValues).flat()]

const trustedPeers = fc.oneof(
  { weight: 4, arbitrary: fc.subarray([...entries]) }, { weight: 1, arbitrary: fc.constantFrom<Json[]>('any', special('function')) })
/** Options that are right, or would be if two of them did not need each other. */
export const anyOptions: fc.Arbitrary<Json> = fc.tuple(
  fc.option(trustedPeers, { nil: undefined, freq: 4 }),
  fc.uniqueArray(fc.constantFrom(...Object.keys(rightValues)), { maxLength: 5 }), fc.nat({ max: 59 })
).map(([trustedPeers, keys, at]) => ({
  ...trustedPeers !== undefined && { trustedPeers },
  ...Object.fromEntries(keys.map((key) => [key, rightValues[key]![at % rightValues[key]!.length] as Json]))
}))

/** The same with one thing in it that is another, gone, or new. */
export function mutateOptions (value: Json, random: (below: number) => number, depth = 0): Json {
  const any = () => pool[random(pool.length)] as Json
  if (typeof value !== 'object' || value === null || (depth > 0 && random(3) === 0)) return any()
  const change = random(6)
  if (Array.isArray(value)) {
    const at = random(value.length + 1)
    if (change === 0) return value.toSpliced(at, 0, any())
    if (change === 1) return value.toSpliced(at, 1)
    return value.length === 0 ? [any()] : value.with(at % value.length, mutateOptions(value[at % value.length], random, depth + 1))
  }
  const keys = Object.keys(value)
  const key = keys[random(keys.length)]
  if (change === 0 || key === undefined) {
    const added = ['sources', 'trustedPeers', ...Object.keys(rightValues), 'source', 'trusted-peers', 'forwardet', 'header', 'kind', '__proto__', 'x'][random(21)] as string
    return { ...value, [added]: any() }
  }
  const { [key]: old, ...rest } = value as { [key: string]: Json }
  return change === 1 ? rest : { ...rest, [key]: mutateOptions(old as Json, random, depth + 1) }
}
