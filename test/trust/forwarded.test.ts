import fc from 'fast-check'
import proxyAddr from '@fastify/proxy-addr'
import t from 'tap'
import { isIP } from 'node:net'
import { hopsOf, walk } from '../../lib/forwarded'
import { compileRanges } from '../../lib/ranges'
import type { RealAddress } from 'fastify-real-ip'
import { numRuns, type Plain, textOf, unmapped } from './plain'

t.setTimeout(0)

type Header = 'x-forwarded-for' | 'forwarded'

const base = (address: string | undefined): RealAddress => Object.freeze({
  address,
  port: 1,
  family: address === undefined ? undefined : isIP(address) === 6 ? 'IPv6' : 'IPv4',
  source: 'transport-peer',
  trust: 'untrusted',
  transportPeer: undefined,
  attempts: []
})

const raw = (header: string, lines: readonly string[]) => ['Host', 'x', ...lines.flatMap((line) => [header, line]), 'X-Other', '198.51.100.9']

function walked (start: string | undefined, trust: readonly string[], header: Header, lines: readonly string[]): RealAddress {
  return walk(base(start), compileRanges(trust, 'forwarded.trust'), hopsOf[header](raw(header, lines)))
}

const shown = ({ address, port, reason }: RealAddress) => [address, port, reason]

// Few addresses, of which some are trusted.
const trust = ['10.0.0.0/8', 'fd00::/8', '192.0.2.1', '2001:db8::1']
const canonical = fc.constantFrom(
  '10.0.0.1', '10.255.255.255', '11.0.0.0', '192.0.2.1', '192.0.2.2', '203.0.113.7', '0.0.0.0', '255.255.255.255',
  'fd00::1', 'fdff::', 'fe00::', '2001:db8::1', '2001:db8::2', '::', '1::'
)

t.test('X-Forwarded-For: on well-formed input what @fastify/proxy-addr finds', async (t) => {
  const compiled = proxyAddr.compile(trust)
  let counted = 0
  const separator = fc.constantFrom(',', ', ', ' ,', ' , ', ',, ')
  fc.assert(fc.property(canonical, fc.array(fc.tuple(canonical, separator), { maxLength: 8 }), fc.nat({ max: 8 }), (peer, entries, at) => {
    const joined = (part: typeof entries) => part.map(([address, separator]) => address + separator).join('')
    // On two lines, as on one.
    const lines = [joined(entries.slice(0, at)), joined(entries.slice(at))]
    const request = { socket: { remoteAddress: peer }, headers: { 'x-forwarded-for': lines.join(', ') } } as unknown as Parameters<typeof proxyAddr>[0]
    const expected = proxyAddr(request, compiled)
    const result = walked(peer, trust, 'x-forwarded-for', lines)
    if (result.address !== expected || result.reason !== undefined) throw new Error(`${result.address} instead of ${expected}`)
    if ((result.source === 'forwarded') !== (result.via !== undefined)) throw new Error('via')
    if (result.via !== undefined) counted++
  }), { numRuns })
  t.ok(counted > numRuns / 10, `${counted} of ${numRuns} headers counted`)
})

/** The address and port of an entry: '' where there is none. */
function plainNode (text: string): string {
  const bracketed = /^\[([0-9a-f:.]+)\](?::(\d{1,5}))?$/i.exec(text)
  const dotted = /^([\d.]+)(?::(\d{1,5}))?$/.exec(text)
  const bare = /^([0-9a-f:.]+)$/i.exec(text)
  const [, address = '', port] = bracketed ?? dotted ?? bare ?? []
  if (isIP(address) === 0 || (bracketed !== null && isIP(address) !== 6) || Number(port ?? 0) > 65535) return ''
  return `${plainAddress(address)} ${Number(port ?? 0) || ''}`
}

function plainAddress (address: string): string {
  if (isIP(address) === 4) return textOf({ family: 'IPv4', value: address.split('.').reduce((value, part) => value << 8n | BigInt(part), 0n) })
  const [, front, dotted] = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(address) ?? []
  const groups = dotted === undefined
    ? address
    : front + dotted.split('.').reduce((value, part) => value << 8n | BigInt(part), 0n).toString(16).padStart(8, '0').replace(/^(....)/, '$1:')
  const [left, right] = groups.split('::').map((half) => half.split(':').filter((group) => group !== ''))
  const all = right === undefined ? left! : [...left!, ...Array<string>(8 - left!.length - right.length).fill('0'), ...right]
  const plain: Plain = unmapped({ family: 'IPv6', value: all.reduce((value, group) => value << 16n | BigInt(`0x${group}`), 0n) })
  return textOf(plain)
}

function plainXForwardedFor (lines: readonly string[]): string[] {
  return lines.join(',').split(',').map((entry) => entry.trim()).filter((entry) => entry !== '').map(plainNode)
}

/** By one character after the other, as RFC 7239 has it; a line that is not so is one entry without an address. */
function plainForwarded (lines: readonly string[]): string[] {
  return lines.flatMap((line) => {
    const entries: string[] = []
    let rest = line
    const take = (pattern: RegExp) => {
      const [found] = pattern.exec(rest) ?? []
      if (found !== undefined) rest = rest.slice(found.length)
      return found
    }
    const tchar = /^[A-Za-z0-9!#$%&'*+.^_`|~-]+/
    while (rest !== '') {
      take(/^[ \t]*/)
      if (rest === '') break
      if (take(/^,/)) continue
      let node: string | undefined
      for (;;) {
        take(/^[ \t]*/)
        const name = take(tchar)
        if (name === undefined || take(/^=/) === undefined) return ['']
        let value = take(tchar)
        if (value === undefined) {
          if (take(/^"/) === undefined) return ['']
          value = ''
          for (;;) {
            const escaped = take(/^\\./)
            const plain = escaped?.slice(1) ?? take(/^[^"\\]/)
            if (plain === undefined) break
            value += plain
          }
          if (take(/^"/) === undefined) return ['']
        }
        if (name.toLowerCase() === 'for') {
          if (node !== undefined) return ['']
          node = value
        }
        take(/^[ \t]*/)
        if (take(/^;/) === undefined) break
      }
      entries.push(plainNode(node ?? ''))
      if (rest !== '' && take(/^,/) === undefined) return ['']
    }
    return entries
  })
}

function plainWalk (start: string, entries: readonly string[]): [address: string, port: string, reason: string | undefined, source: string] {
  const ranges = compileRanges(trust, 'forwarded.trust')
  const isTrusted = (text: string) => {
    const value = isIP(text) === 4
      ? text.split('.').reduce((value, part) => value << 8n | BigInt(part), 0n)
      : text.split(':').reduce((value, group) => value << 16n | BigInt(`0x${group}`), 0n)
    const word = (shift: bigint) => Number(value >> shift & 0xffffffffn) | 0
    return ranges.includes({ family: isIP(text) === 4 ? 'IPv4' : 'IPv6', w0: word(96n), w1: word(64n), w2: word(32n), w3: word(0n) })
  }
  let [address, port, reason, source]: [string, string, string | undefined, string] = [plainAddress(start), '1', undefined, 'transport-peer']
  for (const entry of entries.toReversed()) {
    if (!isTrusted(address)) break
    if (entry === '') {
      reason = 'forwarded-malformed'
      break
    }
    [address = '', port = ''] = entry.split(' ')
    source = 'forwarded'
  }
  return [address, port, reason, source]
}

const port = fc.constantFrom('', ':0', ':1', ':80', ':65535', ':65536', ':100000', ':', ':x', ':-1', ':0080', ': 80', ':80:80')
const address = fc.oneof(canonical, fc.constantFrom(
  '::ffff:10.0.0.1', '::ffff:203.0.113.7', '2001:DB8:0:0:0:0:0:2', '64:ff9b::192.0.2.1', 'fe80::1%eth0', 'unknown', '_hidden', '_SEVKISEK',
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
const headers = {
  'x-forwarded-for': fc.array(fc.tuple(node, fc.constantFrom(',', ', ', ',,', ' ', ';', '\t,')), { maxLength: 6 }).map((parts) => parts.flat().join('')),
  forwarded: fc.oneof(
    fc.array(element, { maxLength: 4 }).map((elements) => elements.join(', ')),
    fc.array(fc.tuple(pair, wrongSeparator), { maxLength: 5 }).map((parts) => parts.flat().join('')),
    fc.array(canonical.map((text) => isIP(text) === 6 ? `for="[${text}]:80"` : `for=${text};proto=http`), { maxLength: 4 }).map((elements) => elements.join(','))
  )
}
const noise = fc.string({ unit: fc.constantFrom(...'0123456789abcdef.:,;="\\[]% \tforFOR<>_'), maxLength: 60 })

for (const [header, plain] of [['x-forwarded-for', plainXForwardedFor], ['forwarded', plainForwarded]] as const) {
  t.test(`${header}: any bytes; what a plain second implementation finds, and never an unchecked string`, async (t) => {
    const results = new Map<string, number>()
    fc.assert(fc.property(canonical, fc.array(fc.oneof({ weight: 4, arbitrary: headers[header] }, { weight: 1, arbitrary: noise }), { maxLength: 3 }), (peer, lines) => {
      const result = walked(peer, trust, header, lines)
      if (isIP(result.address ?? '') === 0 || result.address!.includes('%')) throw new Error(`an address of ${result.address}`)
      if (result.family !== `IPv${isIP(result.address!)}`) throw new Error(result.family)
      const expected = plainWalk(peer, plain(lines))
      const seen = [plainAddress(result.address!), String(result.port ?? ''), result.reason, result.source]
      if (seen.join() !== expected.join()) throw new Error(`${seen} instead of ${expected}`)
      if (result.via !== undefined && (result.via.address !== peer || result.trust !== 'trusted')) throw new Error('via')
      const kind = `${result.source} ${result.reason}`
      results.set(kind, (results.get(kind) ?? 0) + 1)
    }), { numRuns })
    for (const kind of ['transport-peer undefined', 'transport-peer forwarded-malformed', 'forwarded undefined', 'forwarded forwarded-malformed']) {
      t.ok(results.get(kind)! > numRuns / 1000, `${kind}: ${results.get(kind)}`)
    }
  })
}

t.test('noise alone', async () => {
  fc.assert(fc.property(fc.constantFrom<Header>('x-forwarded-for', 'forwarded'), fc.array(fc.string({ unit: 'binary', maxLength: 200 }), { maxLength: 3 }), (header, lines) => {
    const { address } = walked('10.0.0.1', trust, header, lines)
    return isIP(address ?? '') !== 0
  }), { numRuns })
})

t.test('what entries come to', async (t) => {
  const both = (entry: string, expected: unknown[]) => {
    t.same(shown(walked('10.0.0.1', trust, 'x-forwarded-for', [entry])), expected, entry)
    t.same(shown(walked('10.0.0.1', trust, 'forwarded', [`for="${entry.replace(/["\\]/g, '\\$&')}"`])), expected, `for="${entry}"`)
  }
  const stays = ['10.0.0.1', 1, 'forwarded-malformed']
  both('203.0.113.7', ['203.0.113.7', undefined, undefined])
  both('203.0.113.7:443', ['203.0.113.7', 443, undefined])
  both('203.0.113.7:0', ['203.0.113.7', undefined, undefined])
  both('2001:DB8::7', ['2001:db8::7', undefined, undefined])
  both('[2001:db8::7]', ['2001:db8::7', undefined, undefined])
  both('[2001:db8::7]:443', ['2001:db8::7', 443, undefined])
  both('::ffff:203.0.113.7', ['203.0.113.7', undefined, undefined])
  both('[::ffff:cb00:7107]:443', ['203.0.113.7', 443, undefined])
  for (const entry of [
    'unknown', '_hidden', '_SEVKISEK:1', '<script>', '203.0.113.7:65536', '203.0.113.7:', '203.0.113.7:http', '[203.0.113.7]', '[2001:db8::7',
    '2001:db8::7]', '[2001:db8::7]443', '[2001:db8::7]:', '[]', '[', ':', '::ffff:1.2.3', '203.0.113.07', '203.0.113', '0xcb.0.113.7',
    'fe80::1%eth0', '[fe80::1%25eth0]:1', '203.0.113.7%1', '203.0.113.7 198.51.100.1', 'x'.repeat(10_000), '1'.repeat(10_000), ':'.repeat(10_000)
  ]) both(entry, stays)
})

t.test('where it starts, and where it ends', async (t) => {
  const of = (start: string | undefined, ...lines: string[]) => shown(walked(start, trust, 'x-forwarded-for', lines))
  t.same(of(undefined, '203.0.113.7'), [undefined, 1, undefined], 'without an address nobody wrote the header')
  t.same(of('203.0.113.1', '203.0.113.7'), ['203.0.113.1', 1, undefined], 'not a proxy')
  t.same(of('10.0.0.1'), ['10.0.0.1', 1, undefined], 'no header')
  t.same(of('10.0.0.1', ''), ['10.0.0.1', 1, undefined], 'an empty one')
  t.same(of('10.0.0.1', ', ,'), ['10.0.0.1', 1, undefined], 'empty entries')
  t.same(of('10.0.0.1', '198.51.100.1, 203.0.113.7'), ['203.0.113.7', undefined, undefined], 'from right to left')
  t.same(of('10.0.0.1', '198.51.100.1', '203.0.113.7'), ['203.0.113.7', undefined, undefined], 'from the last line to the first')
  t.same(of('10.0.0.1', '203.0.113.7, 10.0.0.2'), ['203.0.113.7', undefined, undefined])
  t.same(of('10.0.0.1', 'unknown, 203.0.113.7'), ['203.0.113.7', undefined, undefined], 'what lies beyond is not looked at')
  t.same(of('10.0.0.1', '203.0.113.7, unknown, 10.0.0.2'), ['10.0.0.2', undefined, 'forwarded-malformed'], 'the last good one')
  t.same(of('10.0.0.1', '10.0.0.3, 10.0.0.2'), ['10.0.0.3', undefined, undefined], 'all are proxies')
})

t.test('an open quote on one line swallows nothing of the others', async (t) => {
  const of = (...lines: string[]) => shown(walked('10.0.0.1', trust, 'forwarded', lines))
  t.same(of('for="', 'for=203.0.113.7'), ['203.0.113.7', undefined, undefined])
  t.same(of('for="198.51.100.1', 'for=10.0.0.2'), ['10.0.0.2', undefined, 'forwarded-malformed'])
  t.same(of('for=198.51.100.1', 'for="'), ['10.0.0.1', 1, 'forwarded-malformed'])
  t.same(of('for=198.51.100.1, for=203.0.113.7;for=198.51.100.1'), ['10.0.0.1', 1, 'forwarded-malformed'], 'twice in one element')
  t.same(of('for=203.0.113.7;proto=https;by="[fd00::1]", proto=http'), ['10.0.0.1', 1, 'forwarded-malformed'], 'an element without')
  t.same(of('proto="a, for=198.51.100.1", for=203.0.113.7'), ['203.0.113.7', undefined, undefined], 'what is quoted is none')
})

t.test('ten thousand entries are looked at one by one, and only as far as they are trusted', async (t) => {
  const many = (entry: string) => Array<string>(10_000).fill(entry)
  t.same(shown(walked('10.0.0.1', trust, 'x-forwarded-for', [['203.0.113.7', ...many('10.0.0.2')].join(', ')])), ['203.0.113.7', undefined, undefined])
  t.same(shown(walked('10.0.0.1', trust, 'x-forwarded-for', ['203.0.113.7', ...many('10.0.0.2')])), ['203.0.113.7', undefined, undefined])
  t.same(shown(walked('10.0.0.1', trust, 'forwarded', [['for=203.0.113.7', ...many('for=10.0.0.2')].join(', ')])), ['203.0.113.7', undefined, undefined])
  t.same(shown(walked('10.0.0.1', trust, 'forwarded', ['for=203.0.113.7', ...many('for=10.0.0.2')])), ['203.0.113.7', undefined, undefined])
  for (const text of [',', ', ', '"', ';', 'for=', 'for="', 'for="\\', '\\"', '[', ' ', '\t']) {
    for (const header of ['x-forwarded-for', 'forwarded'] as const) {
      const { address } = walked('10.0.0.1', trust, header, [text.repeat(10_000), `${text.repeat(10_000)}for=203.0.113.7`])
      t.ok(isIP(address ?? ''), `${header}: ${JSON.stringify(text)}`)
    }
  }

  let read = 0
  const lines = many('203.0.113.7, 10.0.0.2').flatMap((line) => ['X-Forwarded-For', line])
  const counted = new Proxy(lines, {
    get (target, name) {
      if (typeof name === 'string' && /^\d+$/.test(name)) read++
      return Reflect.get(target, name)
    }
  })
  walk(base('10.0.0.1'), compileRanges(trust, 'forwarded.trust'), hopsOf['x-forwarded-for'](counted))
  t.ok(read < 10, `${read} lines were read`)
})
