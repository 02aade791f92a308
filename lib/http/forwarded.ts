import type { RealAddress } from '../../types'
import { type Address, formatAddress, parseAddress } from '../address/address'
import { answer } from '../trust/claim'
import type { Ranges } from '../address/ranges'

/** One hop that a forwarding header names. */
export interface Hop {
  readonly address: Address
  readonly port: number | undefined
}

function * linesFromLast (rawHeaders: ReadonlyArray<string>, name: string): Iterable<string> {
  for (let i = rawHeaders.length - 2; i >= 0; i -= 2) {
    const header = rawHeaders[i] as string
    if (header.length === name.length && header.toLowerCase() === name) yield rawHeaders[i + 1] as string
  }
}

/** X-Forwarded-For: addresses parted by commas, the nearest hop last. Empty entries are passed over. */
function * hopsOfXForwardedFor (rawHeaders: ReadonlyArray<string>): Iterable<Hop | undefined> {
  for (const line of linesFromLast(rawHeaders, 'x-forwarded-for')) {
    for (let end = line.length; end >= 0;) {
      const comma = end === 0 ? -1 : line.lastIndexOf(',', end - 1)
      const entry = line.slice(comma + 1, end).trim()
      if (entry !== '') yield parseNode(entry)
      end = comma
    }
  }
}

/**
 * RFC 7239 Forwarded, line by line: Node.js joins repeated lines, so that a quote left open on one would swallow the
 * next. A line that cannot be parsed is one hop without an address.
 */
function * hopsOfForwarded (rawHeaders: ReadonlyArray<string>): Iterable<Hop | undefined> {
  for (const line of linesFromLast(rawHeaders, 'forwarded')) {
    const elements = parseForwarded(line)
    if (elements === undefined) {
      yield undefined
    } else {
      for (let i = elements.length - 1; i >= 0; i--) yield parseNode(elements[i] as string)
    }
  }
}

/** The hops that a header names, from the nearest to the farthest; `undefined` for an entry that is no address. */
export const hopsOf = {
  'x-forwarded-for': hopsOfXForwardedFor,
  forwarded: hopsOfForwarded
} as const

// RFC 7239 §4, RFC 9110 §5.6.2 and §5.6.4: token = (token or quoted-string), with the space around it that lists allow.
const pair = /[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)|"((?:[^"\\]|\\.)*)")[ \t]*([;,]|$)/y
const empty = /[ \t]*(?:,|$)/y

/** The `for` values of the elements of one line, '' where an element has none; undefined where it is malformed. */
function parseForwarded (line: string): string[] | undefined {
  const elements: string[] = []
  let at = 0
  let node: string | undefined
  let open = false
  while (at < line.length) {
    pair.lastIndex = at
    const match = pair.exec(line)
    if (match === null) {
      empty.lastIndex = at
      if (open || !empty.test(line)) return undefined
      at = empty.lastIndex
      continue
    }
    at = pair.lastIndex
    const [, name, token, quoted, end] = match as unknown as [string, string, string?, string?, string?]
    if (name.toLowerCase() === 'for') {
      if (node !== undefined) return undefined
      node = token ?? (quoted as string).replace(/\\(.)/g, '$1')
    }
    open = end === ';'
    if (!open) {
      elements.push(node ?? '')
      node = undefined
    }
  }
  return open ? undefined : elements
}

/** An address with or without port: 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1], [2001:db8::1]:80. */
function parseNode (text: string): Hop | undefined {
  if (text.length > 64) return undefined
  let node = text
  let digits: string | undefined
  if (text.startsWith('[')) {
    const bracket = text.indexOf(']')
    node = text.slice(1, bracket)
    if (bracket < 0 || !node.includes(':')) return undefined
    const rest = text.slice(bracket + 1)
    if (rest !== '') {
      if (!rest.startsWith(':')) return undefined
      digits = rest.slice(1)
    }
  } else {
    const colon = text.indexOf(':')
    if (colon >= 0 && colon === text.lastIndexOf(':')) {
      node = text.slice(0, colon)
      digits = text.slice(colon + 1)
    }
  }
  const address = parseAddress(node)
  if (address === undefined) return undefined
  if (digits === undefined) return { address, port: undefined }
  if (!/^\d{1,5}$/.test(digits) || Number(digits) > 65535) return undefined
  return { address, port: Number(digits) || undefined }
}

/**
 * Walks from the connection's own address through the header's hops, nearest first, as long as the address at hand is
 * one of the proxies that are trusted to have written the next.
 */
export function walk (base: RealAddress, trust: Ranges, hops: Iterable<Hop | undefined>): RealAddress {
  const start = base.address === undefined ? undefined : parseAddress(base.address)
  if (start === undefined || !trust.includes(start)) return base
  let last: Hop | undefined
  let malformed = false
  for (const hop of hops) {
    if (hop === undefined) {
      malformed = true
      break
    }
    last = hop
    if (!trust.includes(hop.address)) break
  }
  if (last === undefined) return malformed ? answer({ ...base, reason: 'forwarded-malformed' }) : base
  return answer({
    address: formatAddress(last.address),
    port: last.port,
    family: last.address.family,
    source: 'forwarded',
    ...(malformed && { reason: 'forwarded-malformed' }),
    trust: 'trusted',
    transportPeer: base.transportPeer,
    via: base,
    attempts: base.attempts
  })
}
