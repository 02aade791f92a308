import t from 'tap'
import Fastify from 'fastify'
import realIp from 'fastify-real-ip'
import { checkOptions, checkRealIpKeyOptions } from '../../lib/options/options'
import { logOf } from '../trust/log'

const wrong: Array<[options: any, says: RegExp]> = [
  [{ source: ['vtoa'] }, /no option 'source': did you mean 'sources'\? The options are 'sources', 'require', 'toa', /],
  [{ sources: 'vtoa' }, /'sources' must be 'auto' or a list of at least one of 'vtoa', 'nat64', 'getpeername', 'saved-syn', 'proxy-protocol', not "vtoa"/],
  [{ sources: [] }, /'sources' must be 'auto' or a list of at least one/],
  [{ sources: null }, /'sources' must be 'auto' or a list .* not null/],
  [{ sources: ['toa'] }, /'sources' takes 'vtoa', 'nat64', 'getpeername', 'saved-syn', 'proxy-protocol', not "toa"$/],
  [{ sources: ['vtoa', 'peer'] }, /not "peer"; 'peer' is always the last resort/],
  [{ sources: [Symbol('x')] }, /not Symbol\(x\)/],
  [{ sources: [10n] }, /not bigint/],
  [{ sources: ['vtoa', 'vtoa'] }, /names a source twice/],
  [{ require: 'yes' }, /'require' must be true or false, not "yes"/],
  [{ require: null }, /'require' must be true or false, not null/],
  [{ trustedPeers: undefined }, /'trustedPeers' is undefined: a missing setting must not disable the check\. Write a list, \[\] to trust nobody, or 'any'/],
  [{ trustedPeers: null }, /'trustedPeers' is null/],
  [{ trustedPeers: '10.0.0.0/8, fd00::/8,' }, /'trustedPeers' must be a list: write \["10\.0\.0\.0\/8","fd00::\/8"\]/],
  [{ trustedPeers: 7 }, /'trustedPeers' must be a list of addresses and ranges, 'any', or a function, not 7/],
  [{ trustedPeers: ['10.0.0.1/8'] }, /'trustedPeers' has "10\.0\.0\.1\/8": it has bits behind its prefix/],
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
  [{ trustedPeers: [1n] }, /has 1n: write an address/],
  [{ untrusted: 'reject' }, /'untrusted' needs 'trustedPeers'/],
  [{ unverified: 'believe', forwarded: { trust: [] } }, /'unverified' needs 'trustedPeers'/],
  [{ sources: ['vtoa'], forwarded: { trust: [] } }, /'sources' with 'forwarded' needs 'trustedPeers'/],
  [{ trustedpeers: [] }, /no option 'trustedpeers': did you mean 'trustedPeers'\?/],
  [{ trusted_peers: [] }, /did you mean 'trustedPeers'/],
  [{ forward: {} }, /did you mean 'forwarded'/],
  [{ Admit: () => true }, /did you mean 'admit'/],
  [{ trustedPeers: [], untrusted: 'drop' }, /'untrusted' takes 'ignore', 'reject', not "drop"/],
  [{ trustedPeers: [], invalid: 'believe' }, /'invalid' takes 'ignore', 'reject', not "believe"/],
  [{ trustedPeers: [], unverified: true }, /'unverified' takes 'ignore', 'reject', 'believe', not true/],
  [{ trustedPeers: [], forwarded: 1 }, /'forwarded' must be an object like \{"trust":\["198\.51\.100\.0\/24"\],"header":"x-forwarded-for"\}, not 1$/],
  [{ trustedPeers: [], sources: ['proxy-protocol'], proxyProtocol: null }, /'proxyProtocol' must be an object like \{"from":\["10\.0\.0\.0\/24"\],"timeout":\d+\}, not null$/],
  [{ trustedPeers: [], forwarded: null }, /'forwarded' must be an object like/],
  [{ trustedPeers: [], forwarded: { trust: 'loopback' } }, /'forwarded.trust' must be a list/],
  [{ trustedPeers: [], forwarded: { trust: ['x'] } }, /'forwarded.trust' has "x"/],
  [{ trustedPeers: [], forwarded: { trust: [], header: 7 } }, /'forwarded.header' takes 'x-forwarded-for', 'forwarded', or the name of a header whose value is one address, like 'cf-connecting-ip': the name must be a string, not number/],
  [{ trustedPeers: [], forwarded: { trust: [], header: null } }, /the name must be a string/],
  [{ trustedPeers: [], forwarded: { trust: [], header: 'x real ip' } }, /"x real ip" is not a valid header name/],
  [{ trustedPeers: [], forwarded: { trust: [], header: '' } }, /"" is not a valid header name/],
  [{ trustedPeers: [], forwarded: { trust: [], header: ':authority' } }, /is not a valid header name/],
  ...[
    'Connection', 'Keep-Alive', 'Proxy-Authenticate', 'Proxy-Authorization', 'Proxy-Connection', 'TE', 'Trailer', 'Transfer-Encoding', 'upgrade'
  ].map((header): [any, RegExp] => [{ trustedPeers: [], forwarded: { trust: [], header } }, new RegExp(`'${header.toLowerCase()}' is a hop-by-hop header, which the next proxy removes$`)]),
  ...[
    'Accept', 'Accept-Encoding', 'Accept-Language', 'Authorization', 'Content-Length', 'Content-Type', 'Cookie', 'Date', 'Expect', 'Host', 'Origin', 'Referer',
    'User-Agent', 'Via', 'X-Forwarded-Host', 'X-Forwarded-Port', 'X-Forwarded-Proto', 'x-request-id'
  ].map((header): [any, RegExp] => [{ trustedPeers: [], forwarded: { trust: [], header } }, new RegExp(`'${header.toLowerCase()}' never contains an address$`)]),
  [{ trustedPeers: [], forwarded: { trust: [], hops: 1 } }, /there is no 'hops' in 'forwarded'/],
  [{ sources: ['saved-syn'] }, /'saved-syn' needs 'toa', what the balancer writes on the SYN: 'alibaba', 'ucloud', 'tencent', or formats like \[\{ kind: 254/],
  [{ sources: ['saved-syn'], trustedPeers: [], toa: 'dpvs' }, /'saved-syn' cannot be used with this 'toa': since 1\.9\.6 DPVS writes no TOA on the SYN, .* Load its toa\.ko and use sources: \['getpeername'\], or run fastify-real-ip attach on Linux 5\.10 or later$/],
  [{ sources: ['saved-syn'], toa: 'alibaba' }, /'toa' needs 'trustedPeers'/],
  [{ sources: ['saved-syn'], toa: 'alibaba', trustedPeers: 'any' }, /'toa' needs a list of 'trustedPeers'/],
  [{ sources: ['saved-syn'], toa: 'alibaba', trustedPeers: () => true }, /'toa' needs a list of 'trustedPeers'/],
  [{ trustedPeers: [], toa: 'lvs' }, /'toa' takes 'alibaba', 'ucloud', 'tencent', 'dpvs', or a list of formats .* not "lvs"/],
  [{ trustedPeers: [], toa: [] }, /'toa' takes/],
  [{ trustedPeers: [], toa: ['alibaba'] }, /'toa' has "alibaba": /],
  [{ trustedPeers: [], toa: [null] }, /'toa' has null: 'kind' must be the option's number, 2 to 254/],
  [{ trustedPeers: [], toa: [{ kind: 255, length: 8, family: 'IPv4', position: 'first' }] }, /'kind' must be/],
  [{ trustedPeers: [], toa: [{ kind: 254, length: 7, family: 'IPv4', position: 'first' }] }, /'length' must be .* 8 to 40/],
  [{ trustedPeers: [], toa: [{ kind: 254, length: 8, family: 'IPv6', position: 'first' }] }, /'length' must be .* 20 to 40/],
  [{ trustedPeers: [], toa: [{ kind: 254, length: 8, family: 4, position: 'first' }] }, /'family' takes/],
  [{ trustedPeers: [], toa: [{ kind: 254, length: 8, family: 'IPv4', position: 'front' }] }, /'position' takes/],
  [{ trustedPeers: [], toa: [{ kind: 254, length: 8, family: 'IPv4', position: 'first', port: 1 }] }, /a format has no 'port'/],
  [{ virtualServer: 1 }, /'virtualServer' must be true or false, not 1/],
  [{ admit: 'yes' }, /'admit' must be a function/],
  [{ bindLogger: { mask: 24 } }, /'mask' of 'bindLogger' must be an object like \{"ipv4":24,"ipv6":48\}, not 24/],
  [{ bindLogger: { mask: { ipv4: 33 } } }, /'mask.ipv4' of 'bindLogger' must be a whole number from 0 to 32, the bits to keep, not 33/],
  [{ bindLogger: { mask: { ipv6: -1 } } }, /'mask.ipv6' of 'bindLogger' must be a whole number from 0 to 128, .* not -1/],
  [{ bindLogger: { mask: { ipv6: '48' } } }, /not "48"/],
  [{ bindLogger: { mask: { v4: 24 } } }, /there is no 'v4' in 'mask' of 'bindLogger'/],
  [{ bindLogger: null }, /'bindLogger' must be true, false, or an object like .* not null/]
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
    toa: undefined,
    virtualServer: false,
    trustedPeers: undefined,
    proxyProtocol: undefined,
    forwardedOnly: false,
    overrideRequest: false,
    settings: { untrusted: 'ignore', missing: 'ignore', invalid: 'reject', unverified: 'ignore' },
    forwarded: undefined,
    admit: undefined,
    bindLogger: undefined
  }
  t.same(checkOptions({}), defaults)
  t.same(checkOptions({ sources: undefined, require: undefined } as any), defaults)
  t.ok(Object.isFrozen(checkOptions({})) && Object.isFrozen(checkOptions({}).sources))
})

t.test('what is given is taken', async (t) => {
  const formats = [
    { kind: 254, length: 8, family: 'IPv4', position: 'first' }, { kind: 2, length: 40, family: 'IPv4', position: 'last' },
    { kind: 253, length: 20, family: 'IPv6', position: 'last' }
  ] as const
  const admit = () => true
  const given = {
    sources: ['saved-syn', 'nat64'], require: true, virtualServer: true, trustedPeers: ['loopback'], unverified: 'believe', untrusted: 'reject', admit
  } as const
  const { settings, ...options } = checkOptions({
    ...given, sources: [...given.sources], trustedPeers: [...given.trustedPeers], toa: [...formats], forwarded: { trust: ['10.0.0.1'] }, bindLogger: true
  })
  t.same(options, {
    sources: given.sources,
    require: true,
    virtualServer: true,
    trustedPeers: ['loopback'],
    toa: { formats },
    forwarded: { trust: { addresses: ['10.0.0.1'], unix: false }, header: 'x-forwarded-for' },
    proxyProtocol: undefined,
    forwardedOnly: false,
    overrideRequest: false,
    admit,
    bindLogger: { names: 'plain', mask: undefined }
  })
  t.same(settings, { untrusted: 'reject', missing: 'ignore', invalid: 'reject', unverified: 'believe' })
  t.equal(checkOptions({ sources: 'auto' }).sources, 'auto')
  t.equal(checkOptions({ require: false }).require, false)
  t.same(checkOptions({ trustedPeers: [], forwarded: { trust: [], header: 'forwarded' } }).forwarded, { trust: { addresses: [], unix: false }, header: 'forwarded' })
  t.equal(checkOptions({ trustedPeers: [], forwarded: { trust: [], header: 'CF-Connecting-IP' } }).forwarded?.header, 'cf-connecting-ip')
  t.same(checkOptions({ bindLogger: { names: 'opentelemetry' } }).bindLogger, { names: 'opentelemetry', mask: undefined })
  t.same(checkOptions({ bindLogger: { mask: {} } }).bindLogger, { names: 'plain', mask: { ipv4: 24, ipv6: 48 } })
  t.same(checkOptions({ bindLogger: { mask: { ipv4: 0, ipv6: 128 } } }).bindLogger?.mask, { ipv4: 0, ipv6: 128 })
})

t.test("the presets of 'toa'", async (t) => {
  const formatsOf = (toa: 'alibaba' | 'ucloud' | 'tencent' | 'dpvs') =>
    checkOptions({ trustedPeers: [], toa }).toa?.formats.map(({ kind, length, family, position }) => [kind, length, family, position].join('/'))
  t.same(formatsOf('alibaba'), ['254/8/IPv4/first', '253/20/IPv6/first'])
  t.same(formatsOf('ucloud'), ['200/8/IPv4/first'])
  t.same(formatsOf('tencent'), ['200/8/IPv4/first'])
  t.same(formatsOf('dpvs'), ['254/8/IPv4/first', '254/20/IPv6/first'])
})

t.test("the list of sources is copied: changing the user's own later changes nothing", async (t) => {
  const sources: any[] = ['getpeername']
  const options = checkOptions({ sources })
  sources.push('vtoa')
  t.same(options.sources, ['getpeername'])
})

t.test('options of register(), @fastify/autoload and fastify-cli are no unknown options', async (t) => {
  const { logger, codes } = logOf()
  const app = Fastify({ loggerInstance: logger })
  t.teardown(() => app.close())
  await app.register(realIp, { prefix: '/x', logLevel: 'warn', logSerializers: {}, encapsulate: true, autoConfig: {}, skipOverride: true } as object)
  t.ok(app.hasDecorator('realIp'))
  t.notOk(codes.includes('FST_REAL_IP_UNKNOWN_OPTION'))
})

t.test('an option that is nobody\'s does nothing, and is named', async (t) => {
  const strangers: string[] = []
  t.same(checkOptions({ region: 'eu', x: 1, prefix: '/x' } as object, (name) => { strangers.push(name) }), checkOptions({}))
  t.same(strangers, ['region', 'x'])

  const { logger, codes } = logOf()
  const app = Fastify({ loggerInstance: logger })
  t.teardown(() => app.close())
  await app.register(realIp, { sources: ['getpeername'], trustedPeers: 'any', region: 'eu', name: 'x', options: {} } as object)
  t.same(codes, Array(3).fill('FST_REAL_IP_UNKNOWN_OPTION'))
})

t.test('what stands on a prototype is nobody\'s setting', async (t) => {
  const { prototype } = Object
  t.teardown(() => { for (const name of ['trustedPeers', 'unverified', 'header', 'names', 'ipv6Subnet', 'admit']) delete (prototype as Record<string, unknown>)[name] })
  const polluted = { trustedPeers: 'any', unverified: 'believe', header: 'forwarded', names: 'opentelemetry', ipv6Subnet: 7, admit: () => false }
  Object.assign(prototype, polluted)
  t.match(checkOptions({}), { trustedPeers: undefined, settings: { unverified: 'ignore' } })
  t.equal(checkOptions({}).admit, undefined)
  const { settings, forwarded, bindLogger } = checkOptions({ trustedPeers: ['10.0.0.1'], forwarded: { trust: [] }, bindLogger: {} })
  t.equal(settings.unverified, 'ignore')
  t.equal(forwarded?.header, 'x-forwarded-for')
  t.same(bindLogger, { names: 'plain', mask: undefined })
  t.equal(checkRealIpKeyOptions({}), 64)
})

t.test('an option that is inherited, or not enumerable, would be lost without a word: it is an error', async (t) => {
  class Defaults { get trustedPeers () { return ['10.0.0.1'] } }
  class Derived extends Defaults { readonly virtualServer = true }
  const hidden = Object.defineProperty({}, 'admit', { value: () => false })
  for (const [given, name] of [
    [Object.create({ trustedPeers: 'any' }), 'trustedPeers'], [new Defaults(), 'trustedPeers'], [new Derived(), 'trustedPeers'], [hidden, 'admit']
  ]) {
    t.throws(() => checkOptions(given), { code: 'FST_REAL_IP_INVALID_OPTION', message: new RegExp(`'${name}' is not an own property`) })
  }
  class Config { readonly trustedPeers = ['10.0.0.1'] }
  t.same(checkOptions(new Config()).trustedPeers, ['10.0.0.1'])
  t.same(checkOptions(Object.assign(Object.create(null), { trustedPeers: [] })).trustedPeers, [])
})

/** A list whose first entry is another one from the second look on. */
const changing = (entry: string, then: string): { list: string[], looks: () => number } => {
  let looks = 0
  return {
    list: new Proxy([entry], { get: (list, key) => key !== '0' ? Reflect.get(list, key) : looks++ === 0 ? entry : then }),
    looks: () => looks
  }
}

t.test('a list is copied once, and what was checked is what is used', async (t) => {
  const [trustedPeers, trust, sources] = [changing('10.0.0.1', '0.0.0.0/0'), changing('192.0.2.1', '0.0.0.0/0'), changing('vtoa', 'nonsense')]
  const options = checkOptions({ trustedPeers: trustedPeers.list, forwarded: { trust: trust.list }, sources: sources.list as never })
  t.same(options.trustedPeers, ['10.0.0.1'])
  t.same(options.forwarded?.trust.addresses, ['192.0.2.1'])
  t.same(options.sources, ['vtoa'])
  t.same([trustedPeers.looks(), trust.looks(), sources.looks()], [1, 1, 1])
  t.ok(Object.isFrozen(options.trustedPeers) && Object.isFrozen(options.sources))

  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(realIp, { trustedPeers: [], forwarded: { trust: [] } })
  app.get('/', ({ realAddress: { trust } }) => trust)
  const swapped = changing('10.0.0.1', '0.0.0.0/0')
  app.realIp.setTrustedPeers(swapped.list)
  t.equal(swapped.looks(), 1)
  t.equal((await app.inject({ url: '/', remoteAddress: '10.0.0.1' })).body, 'trusted')
  t.equal((await app.inject({ url: '/', remoteAddress: '10.0.0.2' })).body, 'untrusted')
})

t.test('the entries of lists are trimmed', async (t) => {
  const options = checkOptions({ trustedPeers: [' 10.0.0.1 ', '\tloopback\n'], forwarded: { trust: [' 192.0.2.1 ', ' unix'] } })
  t.same(options.trustedPeers, ['10.0.0.1', 'loopback'])
  t.same(options.forwarded?.trust, { addresses: ['192.0.2.1'], unix: true })
})
