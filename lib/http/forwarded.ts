import type { RealAddress, Reason } from '../../types'
import { type Address, formatAddress, parseAddress } from '../address/address'
import { type AddressPort, parseAddressPort, parseAddressThenPort } from '../address/address-port'
import type { Ranges } from '../address/ranges'
import { answer } from '../trust/claim'
import { isPlausible } from '../trust/plausible'
import { linesFromLast } from './header-lines'
import { rememberOrigin } from './origin'
import { type ForwardedElement, parseForwarded } from './rfc7239'

/** One hop of a forwarding header; Forwarded also gives `protocol` and `host`. */
export interface Hop extends AddressPort {
  readonly protocol?: string | undefined
  readonly host?: string | undefined
}

/** Reads the hops of a header from the nearest to the farthest; `undefined` for an entry that is not an address. */
export type ReadHops = (rawHeaders: ReadonlyArray<string>) => Iterable<Hop | undefined>

/**
 * The reader of a header. Names other than the two lists are headers with a single address. `origins`: keeps protocol
 * and host of Forwarded for protocolOf() and hostOf(), in a WeakMap entry per answer.
 */
export function compileHeader (name: string, origins = false): ReadHops {
  if (name === 'x-forwarded-for') return hopsOfXForwardedFor
  if (name === 'forwarded') return (rawHeaders) => hopsOfForwarded(rawHeaders, origins)
  const parse = name === 'cloudfront-viewer-address' ? parseAddressThenPort : parseAddressPort
  return (rawHeaders) => onlyHop(rawHeaders, name, parse)
}

/** X-Forwarded-For: addresses separated by commas, nearest hop last. Skips empty entries. */
function * hopsOfXForwardedFor (rawHeaders: ReadonlyArray<string>): Iterable<Hop | undefined> {
  for (const line of linesFromLast(rawHeaders, 'x-forwarded-for')) {
    for (let end = line.length; end >= 0;) {
      const comma = end === 0 ? -1 : line.lastIndexOf(',', end - 1)
      const entry = line.slice(comma + 1, end).trim()
      if (entry !== '') yield parseAddressPort(entry)
      end = comma
    }
  }
}

/** Forwarded (RFC 7239), by line: Node.js joins repeated lines, and an open quote on one would consume the next. */
function * hopsOfForwarded (rawHeaders: ReadonlyArray<string>, origins: boolean): Iterable<Hop | undefined> {
  for (const line of linesFromLast(rawHeaders, 'forwarded')) {
    for (const element of parseForwarded(line).reverse()) yield element && hopOf(element, origins)
  }
}

function hopOf ({ for: node, proto, host }: ForwardedElement, origins: boolean): Hop | undefined {
  const hop = node === undefined ? undefined : parseAddressPort(node)
  return hop === undefined || !origins ? hop : { ...hop, protocol: proto, host }
}

/** The reader of a header that is incomplete. */
export const readNothing: ReadHops = () => malformed

const none: ReadonlyArray<undefined> = []
const malformed: ReadonlyArray<undefined> = [undefined]

/** A header with a single address: a second line makes it malformed. */
function onlyHop (
  rawHeaders: ReadonlyArray<string>, name: string, parse: (text: string) => Hop | undefined
): ReadonlyArray<Hop | undefined> {
  let value: string | undefined
  for (const line of linesFromLast(rawHeaders, name)) {
    if (value !== undefined) return malformed
    value = line
  }
  return value === undefined ? none : [parse(value.trim())]
}

/** The address assumed for peers on a Unix-domain socket. */
export const loopback = parseAddress('127.0.0.1') as Address

/**
 * Walks from the connection's address through the hops of a header, nearest first, while the current address is a
 * trusted proxy. `unix`: the connection came through a trusted Unix socket.
 */
export function walk (
  base: RealAddress, trust: Ranges, readHops: ReadHops, rawHeaders: ReadonlyArray<string>, unix = false
): RealAddress {
  let at = base.address === undefined ? undefined : parseAddress(base.address)
  if (unix) at = loopback
  else if (at === undefined || !trust.includes(at)) return base
  let last: Hop | undefined
  // The result when the hops run out: the last address is a proxy that named no client.
  let reason: Reason | undefined = 'forwarded-missing'
  for (const hop of readHops(rawHeaders)) {
    if (hop === undefined || !isPlausible(hop.address, at)) {
      reason = 'forwarded-malformed'
      break
    }
    last = hop
    at = hop.address
    if (!trust.includes(at)) {
      reason = undefined
      break
    }
  }
  if (last === undefined) return answer({ ...base, reason: reason as Reason })
  const found = answer({
    address: formatAddress(last.address),
    port: last.port,
    family: last.address.family,
    source: 'forwarded',
    ...(reason && { reason }),
    trust: 'trusted',
    transportPeer: base.transportPeer,
    via: base,
    attempts: base.attempts
  })
  rememberOrigin(found, last)
  return found
}
