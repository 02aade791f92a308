import { type Address, parseAddress } from './address'

/** An address with an optional port. */
export interface AddressPort {
  readonly address: Address
  readonly port: number | undefined
}

// The longest valid text: IPv6 with zone, brackets and port.
const LONGEST = 64

/**
 * Parses 192.0.2.1, 192.0.2.1:80, 2001:db8::1, [2001:db8::1] and [2001:db8::1]:80. Port 0 becomes `undefined`; zones
 * are stripped.
 */
export function parseAddressPort (text: string): AddressPort | undefined {
  if (text.length > LONGEST) return undefined
  if (text.startsWith('[')) {
    const bracket = text.indexOf(']')
    const node = text.slice(1, bracket)
    if (bracket < 0 || !node.includes(':')) return undefined
    if (bracket === text.length - 1) return combine(node, undefined)
    return text[bracket + 1] === ':' ? combine(node, text.slice(bracket + 2)) : undefined
  }
  const colon = text.indexOf(':')
  // Two or more colons: IPv6 without a port.
  return colon < 0 || text.includes(':', colon + 1)
    ? combine(text, undefined)
    : combine(text.slice(0, colon), text.slice(colon + 1))
}

/** The same, but the last colon always starts a port: 2001:db8::1:443 is port 443 of 2001:db8::1. */
export function parseAddressThenPort (text: string): AddressPort | undefined {
  if (text.startsWith('[')) return parseAddressPort(text)
  const colon = text.lastIndexOf(':')
  return colon < 0 || text.length > LONGEST ? undefined : combine(text.slice(0, colon), text.slice(colon + 1))
}

function combine (node: string, digits: string | undefined): AddressPort | undefined {
  const address = parseAddress(stripZone(node))
  if (address === undefined) return undefined
  if (digits === undefined) return { address, port: undefined }
  const port = Number(digits)
  return /^\d{1,5}$/.test(digits) && port < 65536 ? { address, port: port === 0 ? undefined : port } : undefined
}

/** Strips the zone of an IPv6 address (RFC 4007 §11); returns '' if it is malformed. */
function stripZone (node: string): string {
  const percent = node.indexOf('%')
  if (percent < 0) return node
  return node.includes(':') && /^[\w.~-]+$/.test(node.slice(percent + 1)) ? node.slice(0, percent) : ''
}
