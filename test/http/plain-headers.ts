import fc from 'fast-check'
import { isIP } from 'node:net'
import { compileHeader, walk } from '../../lib/http/forwarded'
import { compileRanges } from '../../lib/address/ranges'
import type { RealAddress } from 'fastify-real-ip'
import { parsePlain, textOf, unmapped, within } from '../trust/plain'

// Forwarding headers of any shape, and second implementations of what is read from them.

export type Header = 'x-forwarded-for' | 'forwarded' | 'x-real-ip' | 'cloudfront-viewer-address'

export const base = (address: string | undefined): RealAddress => Object.freeze({
  address,
  port: 1,
  family: address === undefined ? undefined : isIP(address) === 6 ? 'IPv6' : 'IPv4',
  source: 'transport-peer',
  trust: 'untrusted',
  transportPeer: undefined,
  attempts: []
})

const raw = (header: string, lines: readonly string[]) => ['Host', 'x', ...lines.flatMap((line) => [header, line]), 'X-Other', '198.51.100.9']

export function walked (start: string | undefined, header: Header, lines: readonly string[]): RealAddress {
  return walk(base(start), proxies, compileHeader(header), raw(header, lines))
}

// Few addresses, of which some are trusted.
export const trust = ['10.0.0.0/8', 'fd00::/8', '192.0.2.1', '2001:db8::1', '127.0.0.0/9', '::1']
const proxies = compileRanges(trust, 'forwarded.trust')
const networksOf = (ranges: ReadonlyArray<readonly [string, number]>) => ranges.map(([text, prefix]) => [parsePlain(text)!, prefix] as const)
const isWithin = (text: string, networks: ReturnType<typeof networksOf>) =>
  networks.some(([network, prefix]) => within(parsePlain(text)!, network, prefix))
const networks = networksOf([['10.0.0.0', 8], ['fd00::', 8], ['192.0.2.1', 32], ['2001:db8::1', 128], ['127.0.0.0', 9], ['::1', 128]])
/** TRUST.md: what no client can have, loopback apart. */
const impossible = networksOf([['0.0.0.0', 8], ['224.0.0.0', 4], ['255.255.255.255', 32], ['::', 96], ['ff00::', 8]])
const loopback = networksOf([['127.0.0.0', 8], ['::1', 128]])

export const plausible = fc.constantFrom(
  '10.0.0.1', '10.255.255.255', '11.0.0.0', '192.0.2.1', '192.0.2.2', '203.0.113.7', '240.0.0.1', '255.255.255.254',
  'fd00::1', 'fdff::', 'fe00::', '2001:db8::1', '2001:db8::2', '1::', '0:0:1::'
)
export const canonical = fc.oneof({ weight: 3, arbitrary: plausible }, {
  weight: 1,
  arbitrary: fc.constantFrom(
    '0.0.0.0', '0.1.2.3', '127.0.0.1', '127.255.255.255', '224.0.0.1', '239.255.255.255', '255.255.255.255', '::', '::1', '::102:304', 'ff02::1', 'ffff::'
  )
})

/** The address and port of an entry: '' where there is none. */
function plainNode (text: string): string {
  const bracketed = /^\[([0-9a-f:.]+)(?:%[\w.~-]+)?\](?::(\d{1,5}))?$/i.exec(text)
  const dotted = /^([\d.]+)(?::(\d{1,5}))?$/.exec(text)
  const bare = /^([0-9a-f:.]+)(?:%[\w.~-]+)?$/i.exec(text)
  const [, node = '', port] = bracketed ?? dotted ?? bare ?? []
  if (dotted === null && !node.includes(':')) return ''
  const address = plainAddress(node)
  return address === undefined || Number(port ?? 0) > 65535 || text.length > 64 ? '' : `${address} ${Number(port ?? 0) || ''}`
}

export function plainAddress (text: string): string | undefined {
  const plain = parsePlain(text)
  return plain && textOf(unmapped(plain))
}

export function plainXForwardedFor (lines: readonly string[]): string[] {
  return lines.join(',').split(',').map((entry) => entry.trim()).filter((entry) => entry !== '').map(plainNode)
}

/** A header whose value is one address: one line. */
export function plainOneAddress (lines: readonly string[]): string[] {
  return lines.length > 1 ? [''] : lines.map((line) => plainNode(line.trim()))
}

/** The same with a port behind the last colon. */
export function plainViewerAddress (lines: readonly string[]): string[] {
  return plainOneAddress(lines.map((line) => {
    const [, node = '', port] = /^([0-9a-f:.]+(?:%[\w.~-]+)?):(\d{1,5})$/i.exec(line.trim()) ?? []
    return line.trim().startsWith('[') ? line : node.includes(':') ? `[${node}]:${port}` : port === undefined ? '' : `${node}:${port}`
  }))
}

/** Cut at the commas outside quotes, and at the semicolons, as RFC 7239 has it; an open quote takes the rest of its line. */
export function plainForwarded (lines: readonly string[]): string[] {
  return lines.flatMap((line) => {
    const pieces = line.match(/"(?:\\.|[^"\\])*"|"[^]*|[^"]/gs) ?? []
    return splitAt(',', pieces).filter((element) => !isBlank(element)).map((element) => {
      const pairs = splitAt(';', element).filter((pair) => !isBlank(pair)).map((pair) =>
        /^[ \t]*([\w!#$%&'*+.^`|~-]+)=(?:([\w!#$%&'*+.^`|~-]+)|"((?:\\.|[^"\\])*)")[ \t]*$/s.exec(pair.join('')))
      const names = pairs.map((pair) => pair?.[1]?.toLowerCase()).filter((name) => ['for', 'proto', 'host'].includes(name as string))
      if (pairs.includes(null) || new Set(names).size < names.length) return ''
      const node = pairs.find((pair) => pair?.[1]?.toLowerCase() === 'for')
      return plainNode(node?.[2] ?? node?.[3]?.replace(/\\(.)/gs, '$1') ?? '')
    })
  })
}

const isBlank = (pieces: readonly string[]) => /^[ \t]*$/.test(pieces.join(''))

function splitAt (separator: string, pieces: readonly string[]): string[][] {
  const parts: string[][] = [[]]
  for (const piece of pieces) {
    if (piece === separator) parts.push([])
    else parts.at(-1)!.push(piece)
  }
  return parts
}

export function plainWalk (start: string, entries: readonly string[]): [address: string, port: string, reason: string | undefined, source: string] {
  let [address, port, reason, source]: [string, string, string | undefined, string] = [plainAddress(start)!, '1', undefined, 'transport-peer']
  const hops = entries.toReversed()
  while (isWithin(address, networks)) {
    const hop = hops.shift()
    if (hop === undefined) {
      reason = 'forwarded-missing'
      break
    }
    const [found = '', foundPort = ''] = hop.split(' ')
    const isPossible = found !== '' && (isWithin(found, loopback) ? isWithin(address, loopback) : !isWithin(found, impossible))
    if (!isPossible) {
      reason = 'forwarded-malformed'
      break
    }
    [address, port, source] = [found, foundPort, 'forwarded']
  }
  return [address, port, reason, source]
}

const port = fc.constantFrom('', ':0', ':1', ':80', ':65535', ':65536', ':100000', ':', ':x', ':-1', ':0080', ':000080', ': 80', ':80:80')
const address = fc.oneof(canonical, fc.constantFrom(
  '::ffff:10.0.0.1', '::ffff:203.0.113.7', '2001:DB8:0:0:0:0:0:2', '64:ff9b::192.0.2.1', 'fe80::1%eth0', 'fe80::1%', '::ffff:10.0.0.2%25lo', 'unknown', '_hidden', '_SEVKISEK',
  '<script>', '010.0.0.1', '1.2.3', '1.2.3.4.5', '256.0.0.1', '', '%', '1.2.3.4%1', '::1::', '12345::', '"', "'", '\\'
))
const node = fc.tuple(address, port, fc.constantFrom('', '', '[', '[]')).map(([address, port, brackets]) =>
  brackets === '[]' ? `[${address}]${port}` : brackets + address + port)
const quoted = node.map((text) => `"${text}"`)
const pair = fc.tuple(
  fc.constantFrom('for', 'For', 'FOR', 'by', 'proto', 'host', 'x y', '', 'forr'),
  fc.constantFrom('=', '=', '=', '=', '==', ' = ', ''),
  fc.oneof(node, quoted, quoted, fc.constantFrom('http', '"a,b;c"', '"\\""', '"open', '"\\'))
).map((parts) => parts.join(''))
const wrongSeparator = fc.constantFrom(';', '; ', ' ;', ';;', ',', ', ', ',,', ' ')
const element = fc.array(fc.tuple(pair, fc.constantFrom(';', '; ')), { minLength: 1, maxLength: 3 })
  .map((pairs) => pairs.map(([pair, separator], i) => (i > 0 ? separator : '') + pair).join(''))
export const headers = {
  'x-forwarded-for': fc.oneof(
    { weight: 4, arbitrary: fc.array(fc.tuple(node, fc.constantFrom(',', ', ', ',,', ' ', ';', '\t,')), { maxLength: 6 }).map((parts) => parts.flat().join('')) },
    { weight: 1, arbitrary: fc.array(canonical, { maxLength: 3 }).map((entries) => entries.join(', ')) }
  ),
  forwarded: fc.oneof(
    fc.array(element, { maxLength: 4 }).map((elements) => elements.join(', ')),
    fc.array(fc.tuple(pair, wrongSeparator), { maxLength: 5 }).map((parts) => parts.flat().join('')),
    fc.array(canonical.map((text) => isIP(text) === 6 ? `for="[${text}]:80"` : `for=${text};proto=http`), { maxLength: 4 }).map((elements) => elements.join(','))
  ),
  'x-real-ip': fc.oneof(node, canonical, fc.tuple(node, node).map((nodes) => nodes.join(', '))),
  'cloudfront-viewer-address': fc.oneof(node, fc.tuple(canonical, port).map((parts) => parts.join('')))
}
/** What a plain second implementation reads of each header: '' for an entry without an address. */
export const plainReaders: Readonly<Record<Header, (lines: readonly string[]) => string[]>> = {
  'x-forwarded-for': plainXForwardedFor,
  forwarded: plainForwarded,
  'x-real-ip': plainOneAddress,
  'cloudfront-viewer-address': plainViewerAddress
}

export const noise = fc.string({ unit: fc.constantFrom(...'0123456789abcdef.:,;="\\[]% \tforFOR<>_'), maxLength: 60 })
