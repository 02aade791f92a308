import fc from 'fast-check'
import proxyAddr from '@fastify/proxy-addr'
import t from 'tap'
import { isIP } from 'node:net'
import { compileHeader, walk } from '../../lib/http/forwarded'
import { compileRanges } from '../../lib/address/ranges'
import type { RealAddress } from 'fastify-real-ip'
import { numRuns } from '../trust/plain'
import {
  base, canonical, type Header, headers, noise, plainAddress, plainForwarded, plainWalk, plainXForwardedFor, trust, walked
} from './plain-headers'

t.setTimeout(0)

const shown = ({ address, port, reason }: RealAddress) => [address, port, reason]

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
    const result = walked(peer, 'x-forwarded-for', lines)
    if (result.address !== expected || result.reason !== undefined) throw new Error(`${result.address} instead of ${expected}`)
    if ((result.source === 'forwarded') !== (result.via !== undefined)) throw new Error('via')
    if (result.via !== undefined) counted++
  }), { numRuns })
  t.ok(counted > numRuns / 10, `${counted} of ${numRuns} headers counted`)
})

for (const [header, plain] of [['x-forwarded-for', plainXForwardedFor], ['forwarded', plainForwarded]] as const) {
  t.test(`${header}: any bytes; what a plain second implementation finds, and never an unchecked string`, async (t) => {
    const results = new Map<string, number>()
    fc.assert(fc.property(canonical, fc.array(fc.oneof({ weight: 4, arbitrary: headers[header] }, { weight: 1, arbitrary: noise }), { maxLength: 3 }), (peer, lines) => {
      const result = walked(peer, header, lines)
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
    const { address } = walked('10.0.0.1', header, lines)
    return isIP(address ?? '') !== 0
  }), { numRuns })
})

t.test('what entries come to', async (t) => {
  const both = (entry: string, expected: unknown[]) => {
    t.same(shown(walked('10.0.0.1', 'x-forwarded-for', [entry])), expected, entry)
    t.same(shown(walked('10.0.0.1', 'forwarded', [`for="${entry.replace(/["\\]/g, '\\$&')}"`])), expected, `for="${entry}"`)
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
  const of = (start: string | undefined, ...lines: string[]) => shown(walked(start, 'x-forwarded-for', lines))
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

t.test('which of the headers counts', async (t) => {
  const of = (...rawHeaders: string[]) => shown(walk(base('10.0.0.1'), compileRanges(trust, 'forwarded.trust'), compileHeader('x-forwarded-for'), rawHeaders))
  const client = ['203.0.113.7', undefined, undefined]
  t.same(of('X-Forwarded-For', '203.0.113.7'), client, 'the first of all')
  t.same(of('x-FORWARDED-for', '203.0.113.7', 'Host', 'x'), client, 'however it is written')
  t.same(of('X-Forwarded-Far', '203.0.113.7'), ['10.0.0.1', 1, undefined], 'not another of the same length')
})

t.test('Forwarded: empty elements, space at the end, and escaped characters', async (t) => {
  const of = (line: string) => shown(walked('10.0.0.1', 'forwarded', [line]))
  const client = ['203.0.113.7', undefined, undefined]
  for (const line of [',for=203.0.113.7', 'for=203.0.113.7,', 'for=203.0.113.7,,', 'for=203.0.113.7,\t,  for=10.0.0.2', 'for=203.0.113.7,  ']) {
    t.same(of(line), client, JSON.stringify(line))
  }
  t.same(of('for="203.0.113\\.7"'), client, 'RFC 9110: an escaped character is itself')
})

t.test('an open quote on one line swallows nothing of the others', async (t) => {
  const of = (...lines: string[]) => shown(walked('10.0.0.1', 'forwarded', lines))
  t.same(of('for="', 'for=203.0.113.7'), ['203.0.113.7', undefined, undefined])
  t.same(of('for="198.51.100.1', 'for=10.0.0.2'), ['10.0.0.2', undefined, 'forwarded-malformed'])
  t.same(of('for=198.51.100.1', 'for="'), ['10.0.0.1', 1, 'forwarded-malformed'])
  t.same(of('for=198.51.100.1, for=203.0.113.7;for=198.51.100.1'), ['10.0.0.1', 1, 'forwarded-malformed'], 'twice in one element')
  t.same(of('for=203.0.113.7;proto=https;by="[fd00::1]", proto=http'), ['10.0.0.1', 1, 'forwarded-malformed'], 'an element without')
  t.same(of('proto="a, for=198.51.100.1", for=203.0.113.7'), ['203.0.113.7', undefined, undefined], 'what is quoted is none')
})

t.test('ten thousand entries are looked at one by one, and only as far as they are trusted', async (t) => {
  const many = (entry: string) => Array<string>(10_000).fill(entry)
  t.same(shown(walked('10.0.0.1', 'x-forwarded-for', [['203.0.113.7', ...many('10.0.0.2')].join(', ')])), ['203.0.113.7', undefined, undefined])
  t.same(shown(walked('10.0.0.1', 'x-forwarded-for', ['203.0.113.7', ...many('10.0.0.2')])), ['203.0.113.7', undefined, undefined])
  t.same(shown(walked('10.0.0.1', 'forwarded', [['for=203.0.113.7', ...many('for=10.0.0.2')].join(', ')])), ['203.0.113.7', undefined, undefined])
  t.same(shown(walked('10.0.0.1', 'forwarded', ['for=203.0.113.7', ...many('for=10.0.0.2')])), ['203.0.113.7', undefined, undefined])
  for (const text of [',', ', ', '"', ';', 'for=', 'for="', 'for="\\', '\\"', '[', ' ', '\t']) {
    for (const header of ['x-forwarded-for', 'forwarded'] as const) {
      const { address } = walked('10.0.0.1', header, [text.repeat(10_000), `${text.repeat(10_000)}for=203.0.113.7`])
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
  walk(base('10.0.0.1'), compileRanges(trust, 'forwarded.trust'), compileHeader('x-forwarded-for'), counted)
  t.ok(read < 10, `${read} lines were read`)
})
