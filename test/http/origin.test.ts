import Fastify from 'fastify'
import fc from 'fast-check'
import t from 'tap'
import { compileRanges } from '../../lib/address/ranges'
import { compileHeader, walk } from '../../lib/http/forwarded'
import { hostOf, protocolOf } from '../../lib/http/origin'
import { base, trust } from './plain-headers'

const proxies = compileRanges(trust, 'forwarded.trust')

/** What a request from 10.0.0.1, a proxy, comes to. */
function originOf (header: string, rawHeaders: string[], start = '10.0.0.1'): [protocol: string | undefined, host: string | undefined] {
  const answer = walk(base(start), proxies, compileHeader(header, true), rawHeaders)
  return [protocolOf(answer, header, rawHeaders), hostOf(answer, header, rawHeaders)]
}

const named = ['X-Forwarded-For', '203.0.113.7']
const none = [undefined, undefined]

t.test('X-Forwarded-Proto and X-Forwarded-Host, beside any header but Forwarded', async (t) => {
  const beside = ['X-Forwarded-Proto', 'https', 'X-Forwarded-Host', 'example.com:8443']
  t.same(originOf('x-forwarded-for', [...named, ...beside]), ['https', 'example.com:8443'])
  t.same(originOf('x-real-ip', ['X-Real-IP', '203.0.113.7', ...beside]), ['https', 'example.com:8443'])
  t.same(originOf('x-forwarded-for', [...named, 'X-FORWARDED-PROTO', 'HTTPS']), ['https', undefined])
  t.same(originOf('x-forwarded-for', named), none, 'neither is there')
})

t.test('only from where the address came', async (t) => {
  const beside = ['X-Forwarded-Proto', 'https', 'X-Forwarded-Host', 'example.com', 'Forwarded', 'for=203.0.113.7;proto=https;host=example.com']
  t.same(originOf('x-forwarded-for', [...named, ...beside], '203.0.113.1'), none, 'a stranger')
  t.same(originOf('forwarded', [...beside], '203.0.113.1'), none)
  t.same(originOf('x-forwarded-for', beside), none, 'a proxy that named nobody')
  t.same(originOf('x-forwarded-for', [...beside, 'X-Forwarded-For', 'unknown']), none, 'or nobody who can be')
  t.same(originOf('x-real-ip', [...named, ...beside]), none)
  t.same(originOf('forwarded', ['Forwarded', 'for=203.0.113.7', 'X-Forwarded-Proto', 'https', 'X-Forwarded-Host', 'example.com']), none,
    'whoever writes Forwarded may pass on other headers of a client unseen')
})

t.test('Forwarded: of the element that the address came from', async (t) => {
  const of = (...lines: string[]) => originOf('forwarded', lines.flatMap((line) => ['Forwarded', line]))
  t.same(of('for=203.0.113.7;proto=https;host=example.com'), ['https', 'example.com'])
  t.same(of('HOST="[2001:db8::1]:8443";Proto=HTTP;for="[2001:db8::7]:1"'), ['http', '[2001:db8::1]:8443'])
  t.same(of('for=203.0.113.7;proto=https;host=example.com, for=10.0.0.2;proto=http;host=inner.example'), ['https', 'example.com'], 'not of a nearer one')
  t.same(of('for=203.0.113.7;proto=https', 'for=10.0.0.2;proto=http;host=inner.example'), ['https', undefined])
  t.same(of('for=198.51.100.1;proto=https;host=forged.example, for=203.0.113.7;proto=http'), ['http', undefined], 'nor of one farther away')
  t.same(of('for=unknown;proto=https;host=forged.example, for=10.0.0.2;proto=http;host=example.com'), ['http', 'example.com'], 'nor of a malformed one')
  t.same(of('for=203.0.113.7;proto=https;proto=http'), none, 'proto twice is malformed')
  t.same(of('for=203.0.113.7;host=a;host=b'), none)
})

t.test('Forwarded: is not remembered where nobody asks for it', async (t) => {
  const lines = ['Forwarded', 'for=203.0.113.7;proto=https;host=example.com']
  const answer = walk(base('10.0.0.1'), proxies, compileHeader('forwarded'), lines)
  t.equal(answer.address, '203.0.113.7')
  t.same([protocolOf(answer, 'forwarded', lines), hostOf(answer, 'forwarded', lines)], none)
})

t.test('malformed ones are ignored', async (t) => {
  const protocol = (text: string) => originOf('x-forwarded-for', [...named, 'X-Forwarded-Proto', text])[0]
  for (const [text, expected] of [['http', 'http'], [' https ', 'https'], ['Https', 'https'], ['ws', 'http'], ['wss', 'https']] as const) {
    t.equal(protocol(text), expected, text)
  }
  for (const text of ['', 'javascript', 'https:', 'https://', 'ftp', 'constructor', '__proto__', 'https;', '"https"', 'on', '443', 'https http']) t.equal(protocol(text), undefined, text)

  const host = (text: string) => originOf('x-forwarded-for', [...named, 'X-Forwarded-Host', text])[1]
  for (const text of [
    'example.com', 'EXAMPLE.com', 'example.com:1', 'example.com:65535', 'a', 'xn--bcher-kva.example', '192.0.2.1', '192.0.2.1:80', '[2001:db8::1]', '[2001:db8::1]:443', 'under_score.example'
  ]) t.equal(host(text), text)
  t.equal(host(' example.com\t'), 'example.com')
  for (const text of [
    '', ' ', 'example.com:', 'example.com:65536', 'example.com:http', 'example.com/path', 'user@example.com', 'http://example.com', 'exa mple.com', 'example.com?x', 'example.com#x',
    '<script>', '[2001:db8::1', '2001:db8::1', '[2001:db8::1]x', '[fe80::1%eth0]', '[192.0.2.1]', '[]', ':80', 'bücher.example', 'a\r\nb', 'x'.repeat(256), 'example.com:000080'
  ]) t.equal(host(text), undefined, text)
})

t.test('lists are read as Fastify reads them', async (t) => {
  // What Fastify's trustProxy gives of the same lines; it takes anything, and this plugin what is well-formed.
  const app = Fastify({ trustProxy: '10.0.0.1' })
  t.teardown(() => app.close())
  app.get('/', ({ protocol, host }) => ({ protocol, host }))
  await app.ready()
  const text = (...items: string[]) => fc.array(fc.tuple(fc.constantFrom(...items), fc.constantFrom(',', ', ', ' , ')), { minLength: 1, maxLength: 3 })
    .map((parts) => parts.flat().slice(0, -1).join(''))
  const counts = { heeded: 0, ignored: 0 }
  await fc.assert(fc.asyncProperty(
    fc.array(text('http', 'https', 'HTTPS', '', 'ftp'), { minLength: 1, maxLength: 2 }),
    fc.array(text('a.example', 'b.example:1', '[::1]:2', '', 'c d'), { minLength: 1, maxLength: 2 }),
    async (protocols, hosts) => {
      const headers = { 'x-forwarded-for': '203.0.113.7', 'x-forwarded-proto': protocols.join(', '), 'x-forwarded-host': hosts.join(', ') }
      const theirs = (await app.inject({ url: '/', remoteAddress: '10.0.0.1', headers })).json()
      const [protocol, host] = originOf('x-forwarded-for', [
        ...named, ...protocols.flatMap((line) => ['X-Forwarded-Proto', line]), ...hosts.flatMap((line) => ['X-Forwarded-Host', line])
      ])
      for (const [ours, given] of [[protocol, theirs.protocol.toLowerCase()], [host, theirs.host]]) {
        if (ours === undefined) {
          counts.ignored++
          continue
        }
        counts.heeded++
        if (ours !== given) throw new Error(`${ours} instead of ${given}`)
      }
    }), { numRuns: 300 })
  t.ok(counts.heeded > 100 && counts.ignored > 50, JSON.stringify(counts))
})
