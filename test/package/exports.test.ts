import t from 'tap'
import Fastify, { type FastifyInstance } from 'fastify'
import realIp, { fastifyRealIp } from 'fastify-real-ip'

const required = require('fastify-real-ip')

t.test('require() gives the plugin, which is also its own default and named export', async (t) => {
  t.type(required, 'function')
  const names = ['default', 'encodeProxyHeader', 'fastifyRealIp', 'realIpIn', 'realIpKey', 'withRealIp']
  t.same(Object.keys(required).sort(), names)
  t.equal(required.default, required)
  t.equal(required.fastifyRealIp, required)
})

t.test('import gives what require() gives, by the same names', async (t) => {
  const imported: Record<string, unknown> = await import('fastify-real-ip')
  for (const name of Object.keys(required)) t.equal(imported[name], required[name], name)
  t.equal(realIp, required)
  t.equal(fastifyRealIp, required)
})

const forms: Array<[form: string, register: (app: FastifyInstance) => PromiseLike<unknown>]> = [
  ['register(require())', (app) => app.register(required)],
  ['register(default)', (app) => app.register(realIp)],
  ['register(named)', (app) => app.register(fastifyRealIp)],
  ['register(import())', (app) => app.register(import('fastify-real-ip'))],
  ['register(import()) with options', (app) => app.register(import('fastify-real-ip'), { sources: ['getpeername'] })]
]

for (const [form, register] of forms) {
  t.test(`${form} decorates requests and the instance it is called on`, async (t) => {
    const app = Fastify()
    t.teardown(() => app.close())
    await register(app)
    app.get('/', (request) => request.realIp)
    t.ok(app.hasPlugin('fastify-real-ip'))
    t.ok(app.hasRequestDecorator('realAddress'))
    t.type(app.realIp.lookup, 'function')
    const { body } = await app.inject({ url: '/', remoteAddress: '2001:DB8::1' })
    t.equal(body, '2001:db8::1')
  })
}

t.test('Fastify is told which version it is for', async (t) => {
  t.match((required as unknown as Record<symbol, unknown>)[Symbol.for('plugin-meta')], { name: 'fastify-real-ip', fastify: '5.x || 6.x' })
  // For npm '6.x' would leave out prereleases.
  t.same(require('fastify-real-ip/package.json').peerDependencies, { fastify: '^5.0.0 || ^6.0.0-0' })
})

t.test('nothing but the plugin and package.json can be reached', async (t) => {
  t.equal(require('fastify-real-ip/package.json').name, 'fastify-real-ip')
  t.throws(() => require('fastify-real-ip/dist/lib/libc.js'), { code: 'ERR_PACKAGE_PATH_NOT_EXPORTED' })
  t.throws(() => require('fastify-real-ip/lib/libc.ts'), { code: 'ERR_PACKAGE_PATH_NOT_EXPORTED' })
})
