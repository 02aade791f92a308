import { once } from 'node:events'
import rateLimit from '@fastify/rate-limit'
import Fastify from 'fastify'
import pino from 'pino'
import t, { type Test } from 'tap'
import realIp, { realIpIn, realIpKey, withRealIp } from 'fastify-real-ip'

// Each factory passed on as it is, in place of what it makes. One warning for each in a process.

const CLIENT = '192.0.2.7'

/** The code and text of the next warning of the process. */
async function nextWarning (): Promise<[code: string, message: string]> {
  const [{ code, message }] = await once(process, 'warning')
  return [code, message]
}

async function noWarning (t: Test, during: () => Promise<void>): Promise<void> {
  const warnings: Error[] = []
  const add = (warning: Error) => { warnings.push(warning) }
  process.on('warning', add)
  await during()
  await new Promise(setImmediate)
  process.off('warning', add)
  t.same(warnings, [])
}

t.test('serializers: { req: withRealIp }', async (t) => {
  const lines: string[] = []
  const app = Fastify({ logger: { stream: { write (line: string) { lines.push(line) } }, serializers: { req: withRealIp as () => any } } })
  t.teardown(() => app.close())
  await app.register(realIp)
  app.get('/', (request) => {
    for (const req of [null, 'text', 7, {}, { mine: 1 }, request.raw, undefined]) request.log.info({ req }, 'mine')
    return 'ok'
  })
  const warned = nextWarning()
  t.equal((await app.inject({ url: '/', remoteAddress: CLIENT })).statusCode, 200)
  t.same(await warned, ['FST_REAL_IP_NOT_CALLED', 'fastify-real-ip: withRealIp was passed without being called: write withRealIp()'])
  const requests = lines.map((line) => JSON.parse(line)).filter(({ msg }) => msg === 'incoming request' || msg === 'mine').map(({ req }) => req)
  t.match(requests[0], { method: 'GET', realIp: CLIENT, trust: 'unchecked' }, 'what withRealIp() writes')
  t.same(requests.slice(1, 4), [null, 'text', 7])
  t.equal(requests.length, 8)

  await noWarning(t, async () => {
    t.equal((await app.inject({ url: '/', remoteAddress: CLIENT })).statusCode, 200)
    t.match(withRealIp()({ method: 'GET', url: '/', realAddress: { address: CLIENT } }), { realIp: CLIENT })
    t.equal(typeof withRealIp({ names: 'opentelemetry', mask: {} }), 'function')
    t.equal(typeof withRealIp(() => ({})), 'function')
  })
})

t.test('the same in a logger of its own', async (t) => {
  const lines: string[] = []
  const logger = pino({ serializers: { req: withRealIp as () => any } }, { write (line: string) { lines.push(line) } })
  const app = Fastify({ loggerInstance: logger })
  t.teardown(() => app.close())
  await app.register(realIp)
  app.get('/', () => 'ok')
  t.equal((await app.inject({ url: '/', remoteAddress: CLIENT })).statusCode, 200)
  t.match(lines.map((line) => JSON.parse(line)).find(({ msg }) => msg === 'incoming request').req, { realIp: CLIENT })
})

t.test('keyGenerator: realIpKey', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(realIp)
  await app.register(rateLimit, { max: 2, timeWindow: '1 hour', keyGenerator: realIpKey as () => any })
  app.get('/', () => 'ok')
  const ask = async (remoteAddress: string) => (await app.inject({ url: '/', remoteAddress })).statusCode
  const warned = nextWarning()
  t.same([await ask(CLIENT), await ask(CLIENT), await ask(CLIENT)], [200, 200, 429], 'the keys of realIpKey()')
  t.equal(await ask('192.0.2.8'), 200)
  t.same(await warned, ['FST_REAL_IP_NOT_CALLED', 'fastify-real-ip: realIpKey was passed without being called: write realIpKey()'])
  await noWarning(t, async () => {
    t.equal(await ask('192.0.2.9'), 200)
    t.equal(typeof realIpKey({ ipv6Subnet: 56 }), 'function')
  })
})

t.test('realIpIn, where the list was forgotten: nobody is in it', async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(realIp, { trustedPeers: [] })
  await app.register(rateLimit, { max: 1, timeWindow: '1 hour', allowList: realIpIn as () => any })
  app.get('/', (request) => String(realIpIn(request.realAddress as any)))
  const ask = (remoteAddress: string) => app.inject({ url: '/', remoteAddress })
  const warned = nextWarning()
  t.equal((await ask(CLIENT)).body, 'false')
  t.equal((await ask(CLIENT)).statusCode, 429, 'as allowList')
  t.same(await warned, ['FST_REAL_IP_NOT_CALLED', 'fastify-real-ip: realIpIn was passed without being called: write realIpIn(list)'])
  t.throws(() => realIpIn(undefined as any), { code: 'FST_REAL_IP_INVALID_OPTION' }, 'a list that got lost is an error all the same')
  t.equal(realIpIn([CLIENT])({ address: CLIENT, trust: 'trusted' } as any), true)
})

t.test('admit and trustedPeers: a factory is refused when the plugin is registered', async (t) => {
  for (const [admit, says] of [
    [realIpIn, "'admit' is realIpIn itself: write realIpIn(list)"], [realIpKey, "'admit' is realIpKey itself: write realIpKey()"],
    [withRealIp, "'admit' is withRealIp itself: write withRealIp()"]
  ] as const) {
    const app = Fastify()
    t.teardown(() => app.close())
    await t.rejects(async () => app.register(realIp, { admit: admit as () => any }), { code: 'FST_REAL_IP_INVALID_OPTION', message: `fastify-real-ip: ${says}` })
    const other = Fastify()
    t.teardown(() => other.close())
    await t.rejects(async () => other.register(realIp, { trustedPeers: admit as () => any }), { message: `fastify-real-ip: ${says.replace('admit', 'trustedPeers')}` })
  }
})
