import rateLimit from '@fastify/rate-limit'
import Fastify, { type FastifyRequest } from 'fastify'
import fc from 'fast-check'
import t from 'tap'
import realIp, { type RealAddress, realIpIn } from 'fastify-real-ip'
import { formatAddress } from '../../lib/address/address'
import { list, plainRange, written } from '../address/plain-ranges'
import { addressOf, anyAddress, textOf, unmapped, within } from '../trust/plain'
import { CLIENT, kinds, listen } from '../kinds'

const answer = (given: Partial<RealAddress>): RealAddress => ({
  address: '10.0.0.1', port: 1, family: 'IPv4', source: 'getpeername', trust: 'trusted', transportPeer: undefined, attempts: [], ...given
})
const requestOf = (given: Partial<RealAddress>) => ({ realAddress: answer(given) }) as unknown as FastifyRequest

t.test('what is in the list, of an answer and of a request', async (t) => {
  const isIn = realIpIn(['10.0.0.0/8', '2001:db8::/32', '192.0.2.1'])
  for (const [address, expected] of [
    ['10.0.0.1', true], ['10.255.255.255', true], ['11.0.0.0', false], ['192.0.2.1', true], ['192.0.2.2', false], ['2001:db8::7', true], ['2001:db9::', false], ['::a00:1', false]
  ] as const) {
    for (const trust of ['trusted', 'untrusted'] as const) {
      t.equal(isIn(answer({ address, trust })), expected, `${address} ${trust}`)
      t.equal(isIn(requestOf({ address, trust })), expected)
    }
  }
  t.equal(realIpIn([])(answer({})), false)
  t.equal(realIpIn(' 192.0.2.0/24, 10.0.0.0/8'.split(','))(answer({})), true)
  t.equal(realIpIn([' uniquelocal '])(answer({})), true)
  t.equal(realIpIn(['::/0'])(answer({})), false, 'families never mix')
  t.equal(realIpIn(['0.0.0.0/0'])(answer({ address: '2001:db8::1' })), false)
  t.equal(realIpIn(['uniquelocal'])(answer({})), true)
})

t.test('any address, any list: what a plain second implementation finds', async () => {
  fc.assert(fc.property(list, anyAddress, fc.nat(), (ranges, address, style) => {
    const entries = ranges.map((range, i) => written(range, style + i))
    const plain = unmapped(address)
    const expected = entries.some((entry) => plainRange(entry)!.some(({ network, prefix }) => within(plain, network, prefix)))
    const result = realIpIn(entries)(answer({ address: formatAddress(addressOf(plain)) }))
    if (result !== expected) throw new Error(`${textOf(plain)} in ${entries}: ${result}`)
  }), { numRuns: 2000 })
})

t.test('never an address that many share, that nobody vouches for, or none', async (t) => {
  const isIn = realIpIn(['0.0.0.0/0', '::/0'])
  for (const reason of ['no-toa', 'proxy-local', 'forwarded-missing', 'implausible', 'ambiguous', 'forwarded-malformed']) {
    t.equal(isIn(answer({ reason: reason as RealAddress['reason'] & string })), false, reason)
  }
  for (const trust of ['unverified', 'unchecked'] as const) t.equal(isIn(answer({ trust })), false, trust)
  t.equal(isIn(answer({ address: undefined })), false)
  t.equal(isIn(answer({ reason: 'untrusted-peer', trust: 'untrusted' })), true, "a forger's own address is known")
})

t.test('what is neither a request nor an answer is in no list', async (t) => {
  const isIn = realIpIn(['0.0.0.0/0', '::/0']) as (asked: unknown) => boolean
  const hostile = { get realAddress () { throw new Error('no') } }
  for (const nothing of [undefined, null, 7, '10.0.0.1', Symbol('x'), {}, [], () => {}, hostile, new Proxy({}, { has () { throw new Error('no') } }), { realAddress: undefined }, { ...answer({}), address: 'x' }]) {
    t.equal(isIn(nothing), false)
  }
})

const wrong: Array<[list: unknown, says: RegExp]> = [
  [undefined, /realIpIn\(\) takes a list of addresses and ranges, like \['10\.0\.0\.0\/8'\]/],
  [null, /takes a list/],
  ['10.0.0.0/8', /takes a list/],
  [{}, /takes a list/],
  [['10.0.0.1/8'], /'realIpIn\(\)' has "10\.0\.0\.1\/8": it has bits behind its prefix/],
  [['10.0.0.0/8', 'office'], /has "office": this is no IP address/],
  [[undefined], /has undefined/]
]
for (const [list, says] of wrong) {
  t.test(`realIpIn() refuses ${JSON.stringify(list)}`, async (t) => {
    t.throws(() => realIpIn(list as string[]), { name: 'FastifyError', code: 'FST_REAL_IP_INVALID_OPTION', message: says })
  })
}

t.test('the list is copied', async (t) => {
  const list = ['10.0.0.1']
  const isIn = realIpIn(list)
  list[0] = '10.0.0.2'
  t.equal(isIn(answer({})), true)
})

t.test('behind a balancer and a proxy', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(realIp, { trustedPeers: ['10.0.0.2'], forwarded: { trust: ['172.16.0.1'] } })
  const isIn = realIpIn(['10.0.0.0/8', '172.16.0.0/12'])
  app.get('/', (request) => [isIn(request), isIn(request.realAddress), isIn(app.realIp.lookup(request.raw))])
  const ask = async (remoteAddress: string, xForwardedFor?: string) => {
    const results: boolean[] = (await app.inject({ url: '/', remoteAddress, headers: xForwardedFor === undefined ? {} : { 'x-forwarded-for': xForwardedFor } })).json()
    t.equal(new Set(results).size, 1, 'asked in any way')
    return results[0]
  }
  t.equal(await ask('10.0.0.2'), false, 'a balancer that names nobody')
  t.equal(await ask('10.0.0.3'), true, 'a client')
  t.equal(await ask('203.0.113.7'), false)
  t.equal(await ask('172.16.0.1'), false, 'a proxy that names nobody')
  t.equal(await ask('172.16.0.1', '10.0.0.3'), true)
  t.equal(await ask('172.16.0.1', '10.0.0.3, 203.0.113.7'), false)
  t.equal(await ask('172.16.0.1', '172.16.0.1'), false, 'a proxy behind the proxy, whose header somebody took away')
  t.equal(await ask('172.16.0.1', '10.0.0.3, nonsense'), false)
})

t.test('nobody is in a list where nobody checks', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(realIp)
  app.get('/', (request) => realIpIn(['0.0.0.0/0'])(request))
  t.equal((await app.inject('/')).body, 'false')
})

t.test('as admit', { skip: process.platform !== 'linux' && 'not Linux' }, async (t) => {
  for (const [list, expected] of [[['127.0.0.0/8'], CLIENT], [['192.0.2.0/24'], undefined]] as const) {
    const app = Fastify()
    t.teardown(() => app.close())
    await app.register(realIp, { trustedPeers: [], admit: realIpIn(list) })
    app.get('/', (request) => request.realAddress)
    const port = await listen(app)
    const ask = async () => {
      const client = await kinds[0]!.connect(port, { localAddress: CLIENT })
      const { address } = await client.get('/')
      await client.close()
      return address
    }
    if (expected === undefined) await t.rejects(ask(), { code: 'ECONNRESET' })
    else t.equal(await ask(), expected)
  }
})

t.test('as allowList of @fastify/rate-limit', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(realIp, { trustedPeers: [] })
  await app.register(rateLimit, { max: 1, timeWindow: '1 hour', allowList: realIpIn(['192.0.2.0/24']) })
  app.get('/', () => 'ok')
  const ask = async (remoteAddress: string) => (await app.inject({ url: '/', remoteAddress })).statusCode
  t.same([await ask('192.0.2.1'), await ask('192.0.2.1'), await ask('192.0.2.1')], [200, 200, 200])
  t.same([await ask('203.0.113.7'), await ask('203.0.113.7')], [200, 429])
})
