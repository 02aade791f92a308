import fc from 'fast-check'
import proxyAddr from '@fastify/proxy-addr'
import t from 'tap'
import { isIP } from 'node:net'
import { compileHeader, walk } from '../../lib/http/forwarded'
import { compileRanges } from '../../lib/address/ranges'
import type { RealAddress } from 'fastify-real-ip'
import { numRuns } from '../trust/plain'
import {
  base, canonical, type Header, headers, noise, plainAddress, plainReaders, plainWalk, plausible, trust, walked
} from './plain-headers'

t.setTimeout(0)

const shown = ({ address, port, reason }: RealAddress) => [address, port, reason]

t.test('X-Forwarded-For: on well-formed input what @fastify/proxy-addr finds', async (t) => {
  const compiled = proxyAddr.compile(trust)
  let counted = 0
  const separator = fc.constantFrom(',', ', ', ' ,', ' , ', ',, ')
  fc.assert(fc.property(plausible, fc.array(fc.tuple(plausible, separator), { maxLength: 8 }), fc.nat({ max: 8 }), (peer, entries, at) => {
    const joined = (part: typeof entries) => part.map(([address, separator]) => address + separator).join('')
    // On two lines, as on one.
    const lines = [joined(entries.slice(0, at)), joined(entries.slice(at))]
    const request = { socket: { remoteAddress: peer }, headers: { 'x-forwarded-for': lines.join(', ') } } as unknown as Parameters<typeof proxyAddr>[0]
    const expected = proxyAddr(request, compiled)
    const result = walked(peer, 'x-forwarded-for', lines)
    if (result.address !== expected) throw new Error(`${result.address} instead of ${expected}`)
    // Where the farthest is a proxy too, nobody is named.
    const reason = compiled(expected, 0) ? 'forwarded-missing' : undefined
    if (result.reason !== reason) throw new Error(`${result.reason} instead of ${reason}`)
    if ((result.source === 'forwarded') !== (result.via !== undefined)) throw new Error('via')
    if (result.via !== undefined) counted++
  }), { numRuns })
  t.ok(counted > numRuns / 10, `${counted} of ${numRuns} headers counted`)
})

/** Mostly few lines: a header of one address has no more than one. */
function linesOf (header: Header): fc.Arbitrary<string[]> {
  const line = fc.oneof({ weight: 4, arbitrary: headers[header] }, { weight: 1, arbitrary: noise })
  return fc.oneof(fc.array(line, { maxLength: 3 }), line.map((line) => [line]))
}

for (const header of Object.keys(plainReaders) as Header[]) {
  t.test(`${header}: any bytes; what a plain second implementation finds, and never an unchecked string`, async (t) => {
    const results = new Map<string, number>()
    fc.assert(fc.property(canonical, linesOf(header), (peer, lines) => {
      const result = walked(peer, header, lines)
      if (isIP(result.address ?? '') === 0 || result.address!.includes('%')) throw new Error(`an address of ${result.address}`)
      if (result.family !== `IPv${isIP(result.address!)}`) throw new Error(result.family)
      const expected = plainWalk(peer, plainReaders[header](lines))
      const seen = [plainAddress(result.address!), String(result.port ?? ''), result.reason, result.source]
      if (seen.join() !== expected.join()) throw new Error(`${seen} instead of ${expected}`)
      if (result.via !== undefined && (result.via.address !== peer || result.trust !== 'trusted')) throw new Error('via')
      const kind = `${result.source} ${result.reason}`
      results.set(kind, (results.get(kind) ?? 0) + 1)
    }), { numRuns })
    const isList = header === 'x-forwarded-for' || header === 'forwarded'
    for (const kind of [
      'transport-peer undefined', 'transport-peer forwarded-malformed', 'transport-peer forwarded-missing', 'forwarded undefined', 'forwarded forwarded-missing',
      ...isList ? ['forwarded forwarded-malformed'] : []
    ]) t.ok(results.get(kind)! > numRuns / 1000, `${kind}: ${results.get(kind)}`)
    t.equal(results.size, isList ? 6 : 5, 'and no others')
  })
}

t.test('noise alone', async () => {
  fc.assert(fc.property(fc.constantFrom(...Object.keys(plainReaders) as Header[]), fc.array(fc.string({ unit: 'binary', maxLength: 200 }), { maxLength: 3 }), (header, lines) => {
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
  // A zone means something on the hop's own machine alone.
  both('fe80::1%eth0', ['fe80::1', undefined, undefined])
  both('[fe80::1%25eth0]:1', ['fe80::1', 1, undefined])
  both('::ffff:203.0.113.7%lo', ['203.0.113.7', undefined, undefined])
  const zone = (length: number) => 'fe80::1%'.padEnd(length, 'x')
  both(zone(64), ['fe80::1', undefined, undefined])
  both(zone(65), stays)
  for (const entry of [
    'unknown', '_hidden', '_SEVKISEK:1', '<script>', '203.0.113.7:65536', '203.0.113.7:', '203.0.113.7:http', '[203.0.113.7]', '[2001:db8::7',
    '2001:db8::7]', '[2001:db8::7]443', '[2001:db8::7]:', '[]', '[', ':', '::ffff:1.2.3', '203.0.113.07', '203.0.113', '0xcb.0.113.7',
    'fe80::1%', '[fe80::1%]:1', 'fe80::1%eth0:80', 'fe80::1%<x>', '203.0.113.7%1', '%eth0', '203.0.113.7 198.51.100.1', 'x'.repeat(10_000), '1'.repeat(10_000), ':'.repeat(10_000)
  ]) both(entry, stays)
})

t.test('where it starts, and where it ends', async (t) => {
  const of = (start: string | undefined, ...lines: string[]) => shown(walked(start, 'x-forwarded-for', lines))
  t.same(of(undefined, '203.0.113.7'), [undefined, 1, undefined], 'without an address nobody wrote the header')
  t.same(of('203.0.113.1', '203.0.113.7'), ['203.0.113.1', 1, undefined], 'not a proxy')
  t.same(of('10.0.0.1'), ['10.0.0.1', 1, 'forwarded-missing'], 'no header')
  t.same(of('10.0.0.1', ''), ['10.0.0.1', 1, 'forwarded-missing'], 'an empty one')
  t.same(of('10.0.0.1', ', ,'), ['10.0.0.1', 1, 'forwarded-missing'], 'empty entries')
  t.same(of('10.0.0.1', '198.51.100.1, 203.0.113.7'), ['203.0.113.7', undefined, undefined], 'from right to left')
  t.same(of('10.0.0.1', '198.51.100.1', '203.0.113.7'), ['203.0.113.7', undefined, undefined], 'from the last line to the first')
  t.same(of('10.0.0.1', '203.0.113.7, 10.0.0.2'), ['203.0.113.7', undefined, undefined])
  t.same(of('10.0.0.1', 'unknown, 203.0.113.7'), ['203.0.113.7', undefined, undefined], 'what lies beyond is not looked at')
  t.same(of('10.0.0.1', '203.0.113.7, unknown, 10.0.0.2'), ['10.0.0.2', undefined, 'forwarded-malformed'], 'the last good one')
  t.same(of('10.0.0.1', '10.0.0.3, 10.0.0.2'), ['10.0.0.3', undefined, 'forwarded-missing'], 'all are proxies, the last of which named nobody')
})

t.test('which of the headers counts', async (t) => {
  const of = (...rawHeaders: string[]) => shown(walk(base('10.0.0.1'), compileRanges(trust, 'forwarded.trust'), compileHeader('x-forwarded-for'), rawHeaders))
  const client = ['203.0.113.7', undefined, undefined]
  t.same(of('X-Forwarded-For', '203.0.113.7'), client, 'the first of all')
  t.same(of('x-FORWARDED-for', '203.0.113.7', 'Host', 'x'), client, 'however it is written')
  t.same(of('X-Forwarded-Far', '203.0.113.7'), ['10.0.0.1', 1, 'forwarded-missing'], 'not another of the same length')
})

t.test('an address that no client can have ends the walk like a malformed entry', async (t) => {
  const of = (start: string, ...entries: string[]) => {
    const [xForwardedFor, forwarded] = [walked(start, 'x-forwarded-for', entries), walked(start, 'forwarded', entries.map((entry) => `for="${entry}"`))]
    t.same(shown(xForwardedFor), shown(forwarded), entries.join())
    return shown(xForwardedFor)
  }
  for (const entry of [
    '0.0.0.0', '0.1.2.3:80', '127.0.0.1', '127.1.2.3', '224.0.0.1', '239.255.255.255', '255.255.255.255', '::ffff:127.0.0.1', '[::ffff:0.0.0.0]:80',
    '::', '::1', '[::1]:80', '::102:304', '::192.0.2.1', 'ff02::1', 'ff02::1%eth0'
  ]) {
    t.same(of('10.0.0.1', entry), ['10.0.0.1', 1, 'forwarded-malformed'])
    t.same(of('10.0.0.1', '203.0.113.7', entry, '10.0.0.2'), ['10.0.0.2', undefined, 'forwarded-malformed'], 'the last good one stands')
  }
  for (const entry of ['10.0.0.9', '192.168.0.1', '169.254.0.1', '240.0.0.1', '64:ff9b::7f00:1', '1::', 'fe80::1']) {
    t.not(of('10.0.0.1', entry)[2], 'forwarded-malformed', `${entry}: private and reserved ones are legitimate`)
  }
  t.same(of('127.0.0.1', '127.0.0.9:80'), ['127.0.0.9', 80, 'forwarded-missing'], 'loopback, from loopback')
  t.same(of('127.0.0.1', '::1'), ['::1', undefined, 'forwarded-missing'])
  t.same(of('::1', '127.128.0.1'), ['127.128.0.1', undefined, undefined])
  t.same(of('127.0.0.1', '127.0.0.9', '10.0.0.2'), ['10.0.0.2', undefined, 'forwarded-malformed'], 'only from the hop before it')
})

t.test('headers whose value is one address', async (t) => {
  const read = (name: string, ...lines: string[]) =>
    shown(walk(base('10.0.0.1'), compileRanges(trust, 'forwarded.trust'), compileHeader(name), lines.flatMap((line) => [name.toUpperCase(), line])))
  const malformed = ['10.0.0.1', 1, 'forwarded-malformed']
  for (const name of ['cf-connecting-ip', 'true-client-ip', 'fastly-client-ip', 'fly-client-ip', 'x-real-ip', 'x-azure-clientip', 'x-of-my-own']) {
    t.same(read(name, '203.0.113.7'), ['203.0.113.7', undefined, undefined], name)
    t.same(read(name, ' 2001:DB8::7\t'), ['2001:db8::7', undefined, undefined])
    t.same(read(name, '203.0.113.7:443'), ['203.0.113.7', 443, undefined])
    t.same(read(name, '[2001:db8::7]:443'), ['2001:db8::7', 443, undefined])
    t.same(read(name, '2001:db8::7:443'), ['2001:db8::7:443', undefined, undefined], 'without brackets it is all address')
    for (const line of ['', ' ', '198.51.100.1, 203.0.113.7', '203.0.113.7,', '203.0.113.7 198.51.100.1', 'unknown', '127.0.0.1', '0.0.0.0', 'ff02::1', '<script>']) {
      t.same(read(name, line), malformed, `${name}: ${line}`)
    }
    t.same(read(name, '203.0.113.7', '203.0.113.7'), malformed, 'two lines')
    t.same(read(name, '203.0.113.7', ''), malformed, 'two lines, one of them empty')
    t.same(read(name), ['10.0.0.1', 1, 'forwarded-missing'], 'none')
    t.same(read(name, '10.0.0.2'), ['10.0.0.2', undefined, 'forwarded-missing'], 'a proxy, which named nobody')
  }
  t.same(shown(walked('203.0.113.1', 'x-real-ip', ['203.0.113.7'])), ['203.0.113.1', 1, undefined], 'from a stranger')
  t.same(shown(walked('127.0.0.1', 'x-real-ip', ['127.0.0.1:5'])), ['127.0.0.1', 5, 'forwarded-missing'], 'a client on the host itself')
})

t.test('CloudFront-Viewer-Address: the last colon begins the port', async (t) => {
  const of = (...lines: string[]) => shown(walked('10.0.0.1', 'cloudfront-viewer-address', lines))
  t.same(of('198.51.100.178:46532'), ['198.51.100.178', 46532, undefined])
  t.same(of('2001:db8::1:443'), ['2001:db8::1', 443, 'forwarded-missing'], 'though it is an address as a whole')
  t.same(of('2001:db8::7:443'), ['2001:db8::7', 443, undefined])
  t.same(of('2001:db8:1:2:3:4:5:6:443'), ['2001:db8:1:2:3:4:5:6', 443, undefined])
  t.same(of('[2001:db8::7]:443'), ['2001:db8::7', 443, undefined])
  t.same(of('::ffff:203.0.113.7:0'), ['203.0.113.7', undefined, undefined])
  const zone = (length: number) => `${'fe80::7%'.padEnd(length - 4, 'x')}:443`
  t.same(of(zone(64)), ['fe80::7', 443, undefined])
  t.same(of(zone(65)), ['10.0.0.1', 1, 'forwarded-malformed'])
  for (const line of ['203.0.113.7', '2001:db8::7:', ':443', '2001:db8::7:65536', '2001:db8::7:dead', '203.0.113.7:443, 203.0.113.7:443', '::1:443', '::443', '']) {
    t.same(of(line), ['10.0.0.1', 1, 'forwarded-malformed'], line)
  }
})

t.test('a Unix socket that is trusted begins a walk without an address', async (t) => {
  const nobody = { ...base(undefined), source: 'none', reason: 'no-address' } as const
  const of = (unix: boolean, ...lines: string[]) =>
    walk(nobody, compileRanges(trust, 'forwarded.trust'), compileHeader('x-forwarded-for'), lines.flatMap((line) => ['X-Forwarded-For', line]), unix)
  t.match(of(true, '203.0.113.7'), { address: '203.0.113.7', source: 'forwarded', trust: 'trusted', via: nobody })
  t.match(of(true, '203.0.113.7, 10.0.0.2'), { address: '203.0.113.7', reason: undefined })
  t.match(of(true, '127.128.0.1'), { address: '127.128.0.1', reason: undefined }, 'a client on the host itself')
  t.match(of(true), { address: undefined, source: 'none', reason: 'forwarded-missing' })
  t.match(of(true, 'unknown'), { address: undefined, source: 'none', reason: 'forwarded-malformed' })
  t.equal(of(false, '203.0.113.7'), nobody)
})

t.test('Forwarded: empty elements, space at the end, and escaped characters', async (t) => {
  const of = (line: string) => shown(walked('10.0.0.1', 'forwarded', [line]))
  const client = ['203.0.113.7', undefined, undefined]
  for (const line of [',for=203.0.113.7', 'for=203.0.113.7,', 'for=203.0.113.7,,', 'for=203.0.113.7,\t,  for=10.0.0.2', 'for=203.0.113.7,  ']) {
    t.same(of(line), client, JSON.stringify(line))
  }
  t.same(of('for="203.0.113\\.7"'), client, 'RFC 9110: an escaped character is itself')
})

t.test('Forwarded: empty pairs, and elements beside a malformed one', async (t) => {
  const of = (line: string) => shown(walked('10.0.0.1', 'forwarded', [line]))
  const client = ['203.0.113.7', undefined, undefined]
  for (const line of [';for=203.0.113.7', 'for=203.0.113.7;', 'for=203.0.113.7 ; ;proto=https', 'proto=https;;for=203.0.113.7;;']) {
    t.same(of(line), client, JSON.stringify(line))
  }
  // What a proxy adds counts, whatever the client wrote before it.
  for (const forged of ['for=a;', 'for=a;for=b', 'for', 'for=', '=', 'for=1.2.3.4 x', '"a,b"', 'for="a"b"c,d"', '\\']) {
    t.same(of(`${forged}, for=203.0.113.7`), client, JSON.stringify(forged))
    t.same(of(`for=198.51.100.1, ${forged}, for=10.0.0.2`), ['10.0.0.2', undefined, 'forwarded-malformed'], JSON.stringify(forged))
  }
  t.same(of(';'), ['10.0.0.1', 1, 'forwarded-malformed'], 'an element without an address')
  // Within an open quote nobody can tell who wrote what.
  for (const open of ['"', 'for="', 'x="a\\', 'for=a"', 'for=198.51.100.1, "']) {
    t.same(of(`${open}, for=203.0.113.7`), ['10.0.0.1', 1, 'forwarded-malformed'], JSON.stringify(open))
    t.same(of(`${open}, for="[2001:db8::7]";by="x", for="10.0.0.2"`), ['10.0.0.1', 1, 'forwarded-malformed'], JSON.stringify(open))
  }
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
