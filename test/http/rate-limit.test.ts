import rateLimit, { normalizeIP } from '@fastify/rate-limit'
import fc from 'fast-check'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import realIp, { type FastifyRealIpOptions, type RealAddress, realIpKey } from 'fastify-real-ip'

/** The key of a request with this address, whatever else it is. */
function keyOf (address: Partial<RealAddress>, options?: Parameters<typeof realIpKey>[0]): string {
  return realIpKey(options)({ realAddress: address } as any)
}

const ipv4 = (address: string) => keyOf({ address, family: 'IPv4' })
const ipv6 = (address: string, ipv6Subnet?: number) =>
  keyOf({ address, family: 'IPv6' }, ipv6Subnet === undefined ? {} : { ipv6Subnet })

t.test('an IPv4 client is its address, an IPv6 client its /64', async (t) => {
  t.equal(ipv4('192.0.2.1'), '192.0.2.1')
  t.not(ipv4('192.0.2.1'), ipv4('192.0.2.2'))
  t.equal(ipv6('2001:db8:1:2:3:4:5:6'), '2001:db8:1:2::')
  t.equal(ipv6('2001:db8:1:2:3:4:5:6'), ipv6('2001:db8:1:2:ffff::1'))
  t.not(ipv6('2001:db8:1:2::1'), ipv6('2001:db8:1:3::1'))
})

t.test('ipv6Subnet says how much of it', async (t) => {
  t.equal(ipv6('2001:db8:1:2ff:3:4:5:6', 56), '2001:db8:1:200::')
  t.equal(ipv6('2001:db8:1:2:3:4:5:6', 128), '2001:db8:1:2:3:4:5:6')
  t.equal(ipv6('2001:db8::1', 1), '::')
  t.equal(ipv6('a001:db8::1', 1), '8000::')
})

t.test('a key is what @fastify/rate-limit itself makes of the address', async (t) => {
  fc.assert(fc.property(fc.ipV6(), fc.integer({ min: 1, max: 128 }), (text, ipv6Subnet) => {
    const address = normalizeIP(text, 128)
    // A mapped address is no IPv6 address of this plugin's.
    if (!address.includes(':')) return
    t.equal(ipv6(address, ipv6Subnet), normalizeIP(text, ipv6Subnet))
  }), { numRuns: 300 })
  fc.assert(fc.property(fc.ipV4(), (address) => {
    t.equal(ipv4(address), normalizeIP(address))
  }), { numRuns: 20 })
})

t.test('who hides behind an address that many share, or has none, is no address', async (t) => {
  const address = '10.0.0.1'
  for (const reason of ['no-toa', 'proxy-local', 'implausible', 'ambiguous', 'forwarded-malformed', 'forwarded-missing'] as RealAddress['reason'][]) {
    t.equal(keyOf({ address, family: 'IPv4', reason: reason! }), `${reason}:10.0.0.1`)
    t.equal(keyOf({ address: '2001:db8::5', family: 'IPv6', reason: reason! }), `${reason}:2001:db8::`)
  }
  t.equal(keyOf({ address, family: 'IPv4', reason: 'untrusted-peer' }), address, "a forger's own address")
  t.equal(keyOf({ address, family: 'IPv4', reason: 'no-answer' }), address)
  t.equal(keyOf({ reason: 'unverified-peer' }), 'unknown:unverified-peer')
  t.equal(realIpKey()({} as any), 'unknown:unobserved', 'without the plugin')
  for (const nothing of [undefined, null, 7, 'text']) t.equal(realIpKey()(nothing as any), 'unknown:unobserved')
})

const wrong: Array<[options: unknown, says: RegExp]> = [
  [{ ipv6Subnet: 0 }, /'ipv6Subnet' must be a whole number from 1 to 128, .* not 0; most networks assign a \/64/],
  [{ ipv6Subnet: 129 }, /not 129/],
  [{ ipv6Subnet: 56.5 }, /not 56\.5/],
  [{ ipv6Subnet: '/64' }, /not "\/64"/],
  [{ ipv6Subnet: null }, /not null/],
  [{ ipv6subnet: 64 }, /there is no 'ipv6subnet' in realIpKey\(\)'s options; write \{"ipv6Subnet":64\}/],
  [64, /realIpKey\(\)'s options must be an object like \{"ipv6Subnet":64\}, not 64/],
  [null, /not null/]
]
for (const [options, says] of wrong) {
  t.test(`realIpKey() refuses ${JSON.stringify(options)}`, async (t) => {
    t.throws(() => realIpKey(options as any), { name: 'FastifyError', code: 'FST_REAL_IP_INVALID_OPTION', message: says })
  })
}

async function limited (t: Test, options: FastifyRealIpOptions = {}): Promise<(remoteAddress: string, headers?: object) => Promise<number>> {
  const app: FastifyInstance = Fastify()
  t.teardown(() => app.close())
  await app.register(realIp, options)
  await app.register(rateLimit, { max: 2, timeWindow: '1 hour', keyGenerator: realIpKey(), allowList: ['192.0.2.99'] })
  app.get('/', () => 'ok')
  return async (remoteAddress, headers = {}) => (await app.inject({ url: '/', remoteAddress, headers: { ...headers } })).statusCode
}

t.test('through @fastify/rate-limit', async (t) => {
  const ask = await limited(t)
  t.same([await ask('192.0.2.1'), await ask('::ffff:192.0.2.1'), await ask('::ffff:c000:201')], [200, 200, 429], 'one IPv4 client, mapped or not')
  t.equal(await ask('::ffff:192.0.2.2'), 200, 'another mapped one')
  t.same([await ask('2001:db8::1'), await ask('2001:db8::2'), await ask('2001:db8::3')], [200, 200, 429], 'one IPv6 client')
  t.equal(await ask('2001:db8:0:1::1'), 200, 'another')
  for (let n = 0; n < 5; n++) t.equal(await ask('192.0.2.99'), 200, 'allowList takes addresses')
})

t.test('a balancer without TOA and a client with its address have a bucket each', async (t) => {
  const proxy = '198.51.100.1'
  const ask = await limited(t, { trustedPeers: ['10.0.0.1'], forwarded: { trust: [proxy] } })
  t.same([await ask('10.0.0.1'), await ask('10.0.0.1'), await ask('10.0.0.1')], [200, 200, 429], 'behind the balancer')
  const from = { 'x-forwarded-for': '10.0.0.1' }
  t.same([await ask(proxy, from), await ask(proxy, from), await ask(proxy, from)], [200, 200, 429], 'who really has that address')
  const garbled = { 'x-forwarded-for': '<script>' }
  t.same([await ask(proxy, garbled), await ask(proxy, garbled), await ask(proxy, garbled)], [200, 200, 429], 'behind a garbled header')
  t.same([await ask(proxy), await ask(proxy), await ask(proxy)], [200, 200, 429], 'behind a proxy that names nobody')
})

t.test('requests without an address do not use up that of anyone', async (t) => {
  const ask = await limited(t)
  t.same([await ask('nowhere'), await ask('nowhere'), await ask('elsewhere')], [200, 200, 429])
  t.equal(await ask('192.0.2.1'), 200)
})
