import t from 'tap'
import Fastify from 'fastify'
import realIp from 'fastify-real-ip'
import { checkOptions } from '../lib/options'

const wrong: Array<[options: any, says: RegExp]> = [
  [{ source: ['vtoa'] }, /no option 'source'; the options are 'sources', 'require'/],
  [{ sources: 'vtoa' }, /'sources' must be a list of at least one of 'vtoa', 'getpeername', not "vtoa"/],
  [{ sources: [] }, /'sources' must be a list of at least one/],
  [{ sources: null }, /'sources' must be a list .* not null/],
  [{ sources: ['toa'] }, /'sources' takes 'vtoa', 'getpeername', not "toa"/],
  [{ sources: ['vtoa', 'peer'] }, /not "peer"; 'peer' is always the last resort/],
  [{ sources: [Symbol('x')] }, /not Symbol\(x\)/],
  [{ sources: [10n] }, /not bigint/],
  [{ sources: ['vtoa', 'vtoa'] }, /names a source twice/],
  [{ require: 'yes' }, /'require' must be true or false, not "yes"/],
  [{ require: null }, /'require' must be true or false, not null/]
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
  const defaults = { sources: ['vtoa', 'getpeername'], require: false }
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
