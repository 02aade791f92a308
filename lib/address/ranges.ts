import { inspect } from 'node:util'
import type { Address } from './address'
import { parseAddress } from './address'
import { FST_REAL_IP_INVALID_OPTION } from '../errors'

const presets: Readonly<Record<string, ReadonlyArray<string>>> = {
  loopback: ['127.0.0.0/8', '::1/128'],
  linklocal: ['169.254.0.0/16', 'fe80::/10'],
  uniquelocal: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7']
}

const EXPECTED = "write an address, a range like '10.0.0.0/8', or one of " +
  Object.keys(presets).map((name) => `'${name}'`).join(', ')

/** First and last address of a range. */
interface Range {
  readonly first: Address
  readonly last: Address
}

/** A compiled list of ranges. Families never mix: `::/0` matches no IPv4 address. */
export interface Ranges {
  includes (address: Address): boolean
  overlaps (other: Ranges): boolean
  readonly list: ReadonlyArray<Range>
}

/**
 * Compiles addresses, CIDR ranges and presets; `option` names the list in errors. Throws FST_REAL_IP_INVALID_OPTION.
 */
export function compileRanges (entries: ReadonlyArray<unknown>, option: string): Ranges {
  const list = entries.flatMap((entry) => {
    const texts = typeof entry === 'string' && Object.hasOwn(presets, entry) ? presets[entry] as string[] : [entry]
    return texts.map((text) => parseRange(text, option))
  })
  const v4 = merge(list.filter((range) => range.first.family === 'IPv4'))
  const v6 = merge(list.filter((range) => range.first.family === 'IPv6'))
  const includes = (address: Address) => contains(address.family === 'IPv4' ? v4 : v6, address)
  return {
    includes,
    overlaps: (other) => list.some((range) => other.includes(range.first)) ||
      other.list.some((range) => includes(range.first)),
    list
  }
}

function parseRange (entry: unknown, option: string): Range {
  const shown = typeof entry === 'string' ? JSON.stringify(entry) : inspect(entry)
  const wrong = (why: string) => new FST_REAL_IP_INVALID_OPTION(`'${option}' has ${shown}: ${why}`)
  if (typeof entry !== 'string') {
    throw wrong(EXPECTED)
  }
  const slash = entry.indexOf('/')
  const text = slash < 0 ? entry : entry.slice(0, slash)
  if (text.includes('%')) throw wrong('an address in a list has no zone; leave it out')
  const address = parseAddress(text)
  if (address === undefined) {
    throw wrong(`this is no IP address; ${EXPECTED}`)
  }
  const mapped = address.family === 'IPv4' && text.includes(':')
  const most = text.includes(':') ? 128 : 32
  const digits = slash < 0 ? String(most) : entry.slice(slash + 1)
  const written = Number(digits)
  if (!/^\d{1,3}$/.test(digits) || written > most) throw wrong(`the prefix length must be a number from 0 to ${most}`)
  if (mapped && written < 96) {
    throw wrong('an IPv4-mapped range shorter than /96 spans more than IPv4; write the IPv4 range, and the IPv6 ' +
      'range apart')
  }
  // Counted over all four words, of which IPv4 uses only the last.
  const prefix = address.family === 'IPv4' ? (mapped ? written : written + 96) : written
  const first = mask(address, prefix, (word, bits) => word & bits)
  if (compare(first, address) !== 0) {
    throw wrong('it has bits behind its prefix; write the first address of the range, or a longer prefix')
  }
  return { first, last: mask(address, prefix, (word, bits) => word | ~bits) }
}

/** The first address of `address`'s range of `prefix` bits: up to 32 for IPv4, up to 128 for IPv6. */
export function firstOfPrefix (address: Address, prefix: number): Address {
  return mask(address, address.family === 'IPv4' ? prefix + 96 : prefix, (word, bits) => word & bits)
}

function mask (address: Address, prefix: number, apply: (word: number, bits: number) => number): Address {
  const at = (word: number, index: number) => {
    const bits = Math.max(0, Math.min(32, prefix - index * 32))
    return apply(word, bits === 0 ? 0 : -1 << (32 - bits)) | 0
  }
  const { family, w0, w1, w2, w3 } = address
  return { family, w0: at(w0, 0), w1: at(w1, 1), w2: at(w2, 2), w3: at(w3, 3) }
}

function compare (a: Address, b: Address): number {
  return (a.w0 >>> 0) - (b.w0 >>> 0) || (a.w1 >>> 0) - (b.w1 >>> 0) || (a.w2 >>> 0) - (b.w2 >>> 0) ||
    (a.w3 >>> 0) - (b.w3 >>> 0)
}

/** Sorts the ranges and merges those that overlap, so that a binary search finds the only candidate. */
function merge (ranges: ReadonlyArray<Range>): ReadonlyArray<Range> {
  const merged: Array<{ first: Address, last: Address }> = []
  for (const range of [...ranges].sort((a, b) => compare(a.first, b.first))) {
    const before = merged.at(-1)
    if (before === undefined || compare(range.first, before.last) > 0) merged.push({ ...range })
    else if (compare(range.last, before.last) > 0) before.last = range.last
  }
  return merged
}

function contains (ranges: ReadonlyArray<Range>, address: Address): boolean {
  let low = 0
  let high = ranges.length - 1
  while (low <= high) {
    const middle = (low + high) >>> 1
    const range = ranges[middle] as Range
    if (compare(address, range.first) < 0) high = middle - 1
    else if (compare(address, range.last) > 0) low = middle + 1
    else return true
  }
  return false
}
