import t from 'tap'
import Fastify from 'fastify'
import realIp from 'fastify-real-ip'
import { checkOptions } from '../lib/options'

const wrong: Array<[options: any, says: RegExp]> = [
  [{ source: ['vtoa'] }, /no option 'source'; the options are 'sources', 'require', 'trustedPeers', /],
  [{ sources: 'vtoa' }, /'sources' must be a list of at least one of 'vtoa', 'getpeername', not "vtoa"/],
  [{ sources: [] }, /'sources' must be a list of at least one/],
  [{ sources: null }, /'sources' must be a list .* not null/],
  [{ sources: ['toa'] }, /'sources' takes 'vtoa', 'getpeername', not "toa"/],
  [{ sources: ['vtoa', 'peer'] }, /not "peer"; 'peer' is always the last resort/],
  [{ sources: [Symbol('x')] }, /not Symbol\(x\)/],
  [{ sources: [10n] }, /not bigint/],
  [{ sources: ['vtoa', 'vtoa'] }, /names a source twice/],
  [{ require: 'yes' }, /'require' must be true or false, not "yes"/],
  [{ require: null }, /'require' must be true or false, not null/],
  [{ trustedPeers: undefined }, /'trustedPeers' is undefined: a setting that got lost must not open the door/],
  [{ trustedPeers: null }, /'trustedPeers' is null/],
  [{ trustedPeers: '10.0.0.0/8, fd00::/8' }, /'trustedPeers' must be a list: write \["10\.0\.0\.0\/8","fd00::\/8"\]/],
  [{ trustedPeers: 7 }, /'trustedPeers' must be a list of addresses and ranges, 'any', or a function, not 7/],
  [{ trustedPeers: ['10.0.0.1/8'] }, /"10\.0\.0\.1\/8": it has bits behind its prefix/],
  [{ trustedPeers: ['fd00::1/8'] }, /bits behind its prefix/],
  [{ trustedPeers: ['fe80::1%eth0'] }, /has no zone/],
  [{ trustedPeers: ['::ffff:10.0.0.0/95'] }, /shorter than \/96/],
  [{ trustedPeers: ['10.0.0.0/33'] }, /prefix length must be a number from 0 to 32/],
  [{ trustedPeers: ['10.0.0.0/'] }, /prefix length/],
  [{ trustedPeers: ['10.0.0.0/8x'] }, /prefix length/],
  [{ trustedPeers: ['::/129'] }, /from 0 to 128/],
  [{ trustedPeers: ['balancer.example'] }, /this is no IP address/],
  [{ trustedPeers: ['toString'] }, /this is no IP address/],
  [{ trustedPeers: [undefined] }, /has undefined: write an address/],
  [{ untrusted: 'reject' }, /'untrusted' needs 'trustedPeers'/],
  [{ forwarded: { trust: [] } }, /'forwarded' needs 'trustedPeers'/],
  [{ trustedPeers: [], untrusted: 'drop' }, /'untrusted' takes 'ignore', 'reject', not "drop"/],
  [{ trustedPeers: [], invalid: 'believe' }, /'invalid' takes 'ignore', 'reject', not "believe"/],
  [{ trustedPeers: [], unverified: true }, /'unverified' takes 'ignore', 'reject', 'believe', not true/],
  [{ trustedPeers: [], forwarded: 1 }, /'forwarded' must be an object like/],
  [{ trustedPeers: [], forwarded: null }, /'forwarded' must be an object like/],
  [{ trustedPeers: [], forwarded: { trust: 'loopback' } }, /'forwarded.trust' must be a list/],
  [{ trustedPeers: [], forwarded: { trust: ['x'] } }, /'forwarded.trust' has "x"/],
  [{ trustedPeers: [], forwarded: { trust: [], header: 'x-real-ip' } }, /'forwarded.header' takes 'x-forwarded-for', 'forwarded'/],
  [{ trustedPeers: [], forwarded: { trust: [], hops: 1 } }, /'forwarded' has no 'hops'/],
  [{ admit: 'yes' }, /'admit' must be a function/]
]

for (const [options, says] of wrong) {
  t.test(`register refuses ${says.source}`, async (t) => {
    const app = Fastify()
    t.teardown(() => app.close())
    await t.rejects(async () => app.register(realIp, options), {
      code: 'FST_REAL_IP_INVALID_OPTION', name: 'FastifyError', message: says
    })
  })
}

t.test('an invalid option is a TypeError', async (t) => {
  try {
    checkOptions({ sources: [] })
    t.fail('it was accepted')
  } catch (error) {
    t.ok(error instanceof TypeError)
  }
})

t.test('what is left out or undefined takes its default', async (t) => {
  const defaults = {
    sources: ['vtoa', 'getpeername'],
    require: false,
    trustedPeers: undefined,
    settings: { untrusted: 'ignore', missing: 'ignore', invalid: 'reject', unverified: 'ignore' },
    forwarded: undefined,
    admit: undefined
  }
  t.same(checkOptions({}), defaults)
  t.same(checkOptions({ sources: undefined, require: undefined } as any), defaults)
  t.ok(Object.isFrozen(checkOptions({})) && Object.isFrozen(checkOptions({}).sources))
})

t.test("the list of sources is copied: changing the user's own later changes nothing", async (t) => {
  const sources: any[] = ['getpeername']
  const options = checkOptions({ sources })
  sources.push('vtoa')
  t.same(options.sources, ['getpeername'])
})

t.test("Fastify's own options of register() are no unknown options", async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(realIp, { prefix: '/x', logLevel: 'warn' })
  t.ok(app.hasDecorator('realIp'))
})
