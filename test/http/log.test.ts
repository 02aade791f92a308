import { FastifyOtelInstrumentation } from '@fastify/otel'
import Fastify, { type FastifyInstance, type FastifyRequest, type FastifyServerOptions } from 'fastify'
import pino from 'pino'
import t, { type Test } from 'tap'
import realIp, { type FastifyRealIpOptions, type RealAddress, realIpKey, withRealIp } from 'fastify-real-ip'
import { holdSearches } from '../kernel/held-searches'
import { kinds, listen } from '../kinds'

const linux = process.platform === 'linux'
const CLIENT = '192.0.2.7'

/** Keeps what pino writes, as text. */
class Output {
  readonly lines: string[] = []
  write (line: string): void { this.lines.push(line) }

  get parsed (): any[] { return this.lines.map((line) => JSON.parse(line)) }
  find (message: string): any { return this.parsed.find(({ msg }) => msg === message) }

  /** By message, what each line of a request has bound to `name`. */
  bound (t: Test, name = 'realIp'): Record<string, string | undefined> {
    for (const line of this.lines) t.equal(JSON.stringify(JSON.parse(line)), line.trim(), 'no field twice')
    return Object.fromEntries(this.parsed.filter(({ reqId }) => reqId !== undefined).map(({ msg, [name]: value }) => [msg, value]))
  }
}

function create (t: Test, logger: object = {}, options: object = {}): { app: FastifyInstance, output: Output } {
  const output = new Output()
  const app = Fastify({ logger: { stream: output, ...logger }, ...options } as FastifyServerOptions) as unknown as FastifyInstance
  t.teardown(() => app.close())
  return { app, output }
}

const ask = (app: FastifyInstance, url = '/', options: object = {}) => app.inject({ url, remoteAddress: CLIENT, ...options })
const speak = (request: FastifyRequest) => {
  request.log.info('in the handler')
  return 'ok'
}

t.test('withRealIp() writes what Fastify writes, with the real address in place of the remote one', async (t) => {
  const plain = create(t)
  plain.app.get('/', () => 'ok')
  const real = create(t, { serializers: { req: withRealIp() } })
  await real.app.register(realIp)
  real.app.get('/', () => 'ok')
  for (const { app } of [plain, real]) await ask(app, '/', { headers: { 'accept-version': '1.x', host: 'example.com:80' } })

  const { remoteAddress, remotePort, ...rest } = plain.output.find('incoming request').req
  t.equal(remoteAddress, CLIENT)
  t.strictSame(real.output.find('incoming request').req, { ...rest, realIp: CLIENT, source: 'peer', trust: 'unchecked', reason: 'injected' })
  t.strictSame(Object.keys(rest), ['method', 'url', 'version', 'host'])
  t.equal(remotePort, undefined)
})

t.test('over every kind of server', { skip: !linux && 'not Linux' }, async (t) => {
  for (const kind of kinds) {
    for (const options of [{}, { trustedPeers: ['127.0.0.1'] }]) {
      const output = new Output()
      const app = kind.create({ logger: { stream: output, serializers: { req: withRealIp() } } })
      await app.register(realIp, { ...options, bindLogger: true })
      app.get('/', (request) => {
        request.log.info('in the handler')
        return {}
      })
      const client = await kind.connect(await listen(app), { localAddress: '127.0.0.9' })
      await client.get('/')
      const peer = { address: '127.0.0.9', port: client.localPort }
      await client.close()
      await app.close()
      const { req } = output.find('incoming request')
      t.match(req, { method: 'GET', url: '/', realIp: peer.address, realPort: peer.port }, kind.name)
      if (options.trustedPeers === undefined) t.match(req, { source: 'getpeername', trust: 'unchecked', transportPeer: undefined })
      else t.match(req, { source: 'transport-peer', trust: 'untrusted', transportPeer: peer })
      t.strictSame(output.bound(t), { 'incoming request': '127.0.0.9', 'in the handler': '127.0.0.9', 'request completed': '127.0.0.9' })
    }
  }
})

t.test("withRealIp(serializer) adds to what the user's own returns", async (t) => {
  const fields = Object.freeze({ id: 'r-1', realIp: 'theirs' })
  const { app, output } = create(t, { serializers: { req: withRealIp(() => fields) } })
  await app.register(realIp)
  await ask(app)
  t.strictSame(output.find('incoming request').req, { id: 'r-1', realIp: CLIENT, source: 'peer', trust: 'unchecked', reason: 'injected' })
})

t.test('what cannot have an address is left as it is', async (t) => {
  for (const serialized of ['text', null, undefined]) {
    const { app, output } = create(t, { serializers: { req: withRealIp(() => serialized) } })
    await app.register(realIp)
    await ask(app)
    t.equal(output.find('incoming request').req, serialized)
  }

  const { app, output } = create(t, { serializers: { req: withRealIp() } })
  app.get('/', (request) => {
    request.log.info({ req: request.raw }, 'raw')
    request.log.info({ req: {} }, 'empty')
    return 'ok'
  })
  await ask(app)
  t.match(output.find('incoming request').req, { method: 'GET', remoteAddress: CLIENT }, 'without the plugin')
  t.match(output.find('raw').req, { method: 'GET', url: '/' })
  t.strictSame(output.find('empty').req, {})
})

t.test("names: 'opentelemetry' names everything as its conventions do", async (t) => {
  for (const req of [withRealIp({ names: 'opentelemetry' }), withRealIp(undefined, { names: 'opentelemetry' }), withRealIp(({ id }: FastifyRequest) => ({ id }), { names: 'opentelemetry' })]) {
    const { app, output } = create(t, { serializers: { req } })
    await app.register(realIp, { trustedPeers: [CLIENT], bindLogger: { names: 'opentelemetry' } })
    app.get('/', speak)
    await ask(app)
    const { req: line } = output.find('incoming request')
    t.match(line, {
      'client.address': CLIENT, 'network.peer.address': CLIENT, 'real_ip.source': 'transport-peer', 'real_ip.trust': 'trusted', 'real_ip.reason': 'no-toa'
    })
    t.notOk('realIp' in line)
    t.notOk('source' in line, 'which would collide with source.address')
    t.strictSame(output.bound(t, 'client.address'), { 'incoming request': CLIENT, 'in the handler': CLIENT, 'request completed': CLIENT })
    t.strictSame(output.bound(t), { 'incoming request': undefined, 'in the handler': undefined, 'request completed': undefined })
  }
})

t.test('what is not known has no field', async (t) => {
  const nothing = { address: undefined, port: undefined, family: undefined, source: 'none', trust: 'unverified', transportPeer: undefined, attempts: [] }
  const request = { method: 'GET', url: '/', host: 'x', headers: {}, realAddress: nothing } as unknown as FastifyRequest
  const portless = { ...request, realAddress: { ...nothing, transportPeer: { address: CLIENT, port: undefined } } } as unknown as FastifyRequest
  const prefixes = { plain: '', opentelemetry: 'real_ip.' }
  for (const names of ['plain', 'opentelemetry'] as const) {
    for (const mask of [undefined, {}]) {
      t.same(Object.keys(withRealIp({ names, ...mask && { mask } })(request) as object), ['method', 'url', 'host', `${prefixes[names]}source`, `${prefixes[names]}trust`])
    }
  }
  t.same(Object.keys(withRealIp({ names: 'opentelemetry' })(portless) as object),
    ['method', 'url', 'host', 'real_ip.source', 'real_ip.trust', 'network.peer.address'])
  const fields = { id: 1 }
  t.equal(withRealIp(() => fields)({} as FastifyRequest), fields, 'without the plugin')
})

t.test("names: 'opentelemetry', of a connection, which has ports", { skip: !linux && 'not Linux' }, async (t) => {
  const { app, output } = create(t, { serializers: { req: withRealIp({ names: 'opentelemetry' }) } })
  await app.register(realIp, { trustedPeers: ['127.0.0.1'] })
  app.get('/', () => ({}))
  const client = await kinds[0]!.connect(await listen(app), { localAddress: '127.0.0.9' })
  await client.get('/')
  await client.close()
  t.match(output.find('incoming request').req, {
    'client.address': '127.0.0.9', 'client.port': client.localPort, 'network.peer.address': '127.0.0.9', 'network.peer.port': client.localPort
  })
})

t.test("pino's redaction reaches the fields", async (t) => {
  const { app, output } = create(t, { serializers: { req: withRealIp() }, redact: ['req.realIp', 'realIp'] })
  await app.register(realIp, { bindLogger: true })
  app.get('/', speak)
  await ask(app)
  t.equal(output.find('incoming request').req.realIp, '[Redacted]')
  t.equal(output.find('in the handler').realIp, '[Redacted]')
  t.notOk(output.lines.join('').includes(CLIENT))
})

t.test('mask: log lines have the masked address, all else the whole one', async (t) => {
  const seen: unknown[] = []
  const mask = { ipv4: 24, ipv6: 48 }
  for (const [client, masked] of [
    ['192.0.2.77', '192.0.2.0'], ['2001:db8:1:2:3:4:5:6', '2001:db8:1::'], ['::ffff:192.0.2.77', '192.0.2.0']
  ] as const) {
    for (const [names, field] of [['plain', 'realIp'], ['opentelemetry', 'client.address']] as const) {
      const { app, output } = create(t, { serializers: { req: withRealIp({ names, mask }) } })
      await app.register(realIp, { trustedPeers: [], bindLogger: { names, mask }, admit: ({ address }) => seen.push(address) > 0 })
      app.get('/', (request) => {
        request.log.info('in the handler')
        return [request.realIp, realIpKey({ ipv6Subnet: 128 })(request)]
      })
      const { body } = await app.inject({ url: '/', remoteAddress: client })
      const whole = client.replace('::ffff:', '')
      t.same(JSON.parse(body), [whole, whole])
      t.equal(output.find('incoming request').req[field], masked)
      t.strictSame(output.bound(t, field), { 'incoming request': masked, 'in the handler': masked, 'request completed': masked })
      t.notOk(output.lines.join('').includes(whole), `${whole} is nowhere in the log`)
    }
  }
})

t.test('mask: the port is left out, and a transport peer masked that may be a client', async (t) => {
  const shown = (address: Partial<RealAddress>, mask = {}) => {
    const answer = { address: '203.0.113.7', port: 5, source: 'getpeername', trust: 'trusted', transportPeer: { address: '10.0.0.2', port: 6 }, ...address }
    const { method, ...fields } = withRealIp((): object => ({ method: 'GET' }), { mask })({ realAddress: answer } as unknown as FastifyRequest) as Record<string, unknown>
    return fields
  }
  const rest = { source: 'getpeername', trust: 'trusted' }
  t.strictSame(shown({}), { realIp: '203.0.113.0', ...rest, transportPeer: { address: '10.0.0.2', port: 6 } }, 'a balancer of the list')
  t.strictSame(shown({ reason: 'implausible', address: '10.0.0.2' }), {
    realIp: '10.0.0.0', ...rest, reason: 'implausible', transportPeer: { address: '10.0.0.0', port: undefined }
  }, 'which is the address itself')
  t.same(shown({ transportPeer: { address: '::ffff:203.0.113.7', port: 5 } }).transportPeer, { address: '203.0.113.0' }, 'in the text of the other family')
  for (const trust of ['untrusted', 'unverified', 'unchecked'] as const) {
    t.same(shown({ trust }).transportPeer, { address: '10.0.0.0' }, trust)
  }
  t.same(shown({ address: undefined }), { ...rest, transportPeer: { address: '10.0.0.0' } })
  t.same(shown({ transportPeer: undefined }), { realIp: '203.0.113.0', ...rest })
  t.equal(shown({}, { ipv4: 0 }).realIp, '0.0.0.0')
  t.equal(shown({}, { ipv4: 32 }).realIp, '203.0.113.7')
  t.equal(shown({}, { ipv4: 9 }).realIp, '203.0.0.0')
  t.equal(shown({ address: 'fedc:ba98:7654:3210::1' }, { ipv6: 61 }).realIp, 'fedc:ba98:7654:3210::')
  t.equal(shown({ address: 'fedc:ba98:7654:3217::1' }, { ipv6: 61 }).realIp, 'fedc:ba98:7654:3210::')
  t.equal(shown({ address: 'fedc:ba98::1' }, { ipv6: 0 }).realIp, '::')
})

t.test('mask: the remote address too, of a request without the plugin', async (t) => {
  const { app, output } = create(t, { serializers: { req: withRealIp({ mask: {} }) } })
  app.get('/', () => 'ok')
  await app.inject({ url: '/', remoteAddress: '192.0.2.77' })
  await app.inject({ url: '/', remoteAddress: 'fe80::1:2:3:4%eth0' })
  await app.inject({ url: '/', remoteAddress: 'nowhere' })
  const lines = output.parsed.filter(({ msg }) => msg === 'incoming request')
  t.strictSame(lines.map(({ req }) => req.remoteAddress), ['192.0.2.0', 'fe80::', undefined])
  t.notOk(lines.some(({ req }) => 'remotePort' in req))
})

t.test('with loggerInstance', async (t) => {
  const output = new Output()
  const app = Fastify({ loggerInstance: pino({ serializers: { req: withRealIp() } }, output) })
  await app.register(realIp, { bindLogger: true })
  app.get('/', (request) => {
    request.log.info('in the handler')
    return 'ok'
  })
  await app.inject({ url: '/', remoteAddress: CLIENT })
  await app.close()
  t.equal(output.find('incoming request').req.realIp, CLIENT)
  t.strictSame(output.bound(t), { 'incoming request': CLIENT, 'in the handler': CLIENT, 'request completed': CLIENT })
})

t.test('with logger: false', async (t) => {
  const app = Fastify({ logger: false })
  t.teardown(() => app.close())
  await app.register(realIp, { bindLogger: true })
  app.get('/', (request) => {
    request.log.info('nobody hears this')
    return request.realIp
  })
  t.equal((await ask(app)).body, CLIENT)
  t.equal((await ask(app, '/missing')).statusCode, 404)
})

t.test('without request logging', async (t) => {
  const { LogController } = Fastify as unknown as { LogController: new (options: object) => object }
  const disabled = { disableRequestLogging: true }
  const isFastify5 = require('fastify/package.json').version.startsWith('5.')
  // Fastify 6 has the option in the controller alone.
  for (const options of [{ logController: new LogController(disabled) }, ...isFastify5 ? [disabled] : []]) {
    const { app, output } = create(t, { serializers: { req: withRealIp() } }, options)
    await app.register(realIp, { bindLogger: true })
    app.get('/', speak)
    await ask(app)
    t.strictSame(output.bound(t), { 'in the handler': CLIENT })
  }
})

const complete = { 'incoming request': CLIENT, 'in the handler': CLIENT, 'request completed': CLIENT }
const tagging = (tag: string): FastifyInstance['childLoggerFactory'] =>
  (logger, bindings, options) => logger.child({ ...bindings, tag }, options)

/** Asserts that every line of `url` has the address, and the tag of the factory that is to be kept. */
async function everyLine (t: Test, { app, output }: ReturnType<typeof create>, url: string, tag?: string): Promise<void> {
  output.lines.length = 0
  await ask(app, url)
  t.strictSame(output.bound(t), complete, url)
  t.ok(output.parsed.every((line) => line.tag === tag), `${url} keeps the factory ${tag}`)
}

t.test('bindLogger: true binds the address to every line', async (t) => {
  const made = create(t)
  await made.app.register(realIp, { bindLogger: true })
  made.app.get('/', speak)
  made.app.register(async (child) => { child.get('/child', speak) }, { prefix: '/v1' })
  await everyLine(t, made, '/')
  await everyLine(t, made, '/v1/child')
  made.output.lines.length = 0
  await ask(made.app, '/', { method: 'HEAD' })
  t.strictSame(made.output.bound(t), complete, 'HEAD')
})

t.test('bindLogger: false, like none, binds nothing', async (t) => {
  const { app, output } = create(t)
  await app.register(realIp, { bindLogger: false })
  app.get('/', speak)
  await ask(app)
  t.strictSame(output.bound(t), { 'incoming request': undefined, 'in the handler': undefined, 'request completed': undefined })
})

t.test('bindLogger keeps a child logger factory', async (t) => {
  t.test('of the constructor', async (t) => {
    const made = create(t, {}, { childLoggerFactory: tagging('constructor') })
    await made.app.register(realIp, { bindLogger: true })
    made.app.get('/', speak)
    await everyLine(t, made, '/', 'constructor')
  })

  t.test('set before, set after, and of a route', async (t) => {
    const made = create(t)
    made.app.setChildLoggerFactory(tagging('before'))
    await made.app.register(realIp, { bindLogger: true })
    made.app.get('/before', speak)
    made.app.get('/route', { childLoggerFactory: tagging('route') }, speak)
    made.app.register(async (child) => {
      child.setChildLoggerFactory(tagging('child'))
      child.get('/child', speak)
    })
    await made.app.after()
    made.app.setChildLoggerFactory(tagging('after'))
    made.app.get('/after', speak)
    for (const tag of ['before', 'route', 'child', 'after']) await everyLine(t, made, `/${tag}`, tag)
  })

  t.test("that calls this plugin's", async (t) => {
    const made = create(t)
    await made.app.register(realIp, { bindLogger: true })
    const { childLoggerFactory } = made.app
    made.app.setChildLoggerFactory(function (logger, bindings, options, raw) {
      return childLoggerFactory.call(this, logger, { ...bindings, tag: 'around' }, options, raw)
    })
    made.app.get('/', speak)
    await everyLine(t, made, '/', 'around')
  })

  t.test('that drops what it is given to bind', async (t) => {
    const made = create(t)
    await made.app.register(realIp, { bindLogger: true })
    made.app.get('/', { childLoggerFactory: (logger) => logger.child({ reqId: 'mine', tag: 'dropping' }) }, speak)
    await everyLine(t, made, '/', 'dropping')
    await everyLine(t, made, '/', 'dropping')
  })

  t.test('whose loggers are not pino, or do not tell what they have bound', async (t) => {
    for (const bindings of [undefined, () => { throw new Error('no') }]) {
      const made = create(t)
      await made.app.register(realIp, { bindLogger: true })
      const childLoggerFactory: FastifyInstance['childLoggerFactory'] = (logger, given, options) =>
        Object.assign(logger.child(given, options), { bindings })
      made.app.get('/', { childLoggerFactory }, speak)
      await everyLine(t, made, '/')
    }
  })
})

t.test('bindLogger binds the lines of 404s', async (t) => {
  const notFound = { 'incoming request': CLIENT, 'Route GET:/missing not found': CLIENT, 'request completed': CLIENT }
  const custom = (request: FastifyRequest, reply: { code (code: number): void }) => {
    reply.code(404)
    return speak(request)
  }

  t.test('by the default handler', async (t) => {
    const { app, output } = create(t)
    await app.register(realIp, { bindLogger: true })
    const { statusCode } = await ask(app, '/missing')
    t.equal(statusCode, 404)
    t.strictSame(output.bound(t), notFound)
  })

  t.test('by the default handler, where another scope registers the plugin', async (t) => {
    const { app, output } = create(t)
    await app.register(async (child) => {
      await child.register(realIp, { bindLogger: true })
      child.get('/child', speak)
      child.addHook('onRequest', async (_request, reply) => { reply.header('x-child', 'yes') })
    })
    const { headers } = await ask(app, '/missing')
    t.notOk('x-child' in headers, "it did not become the child's")
    t.strictSame(output.bound(t), { 'incoming request': undefined, 'Route GET:/missing not found': undefined, 'request completed': undefined })
    output.lines.length = 0
    await ask(app, '/child')
    t.strictSame(output.bound(t), complete)
  })

  t.test('by a handler that was set after', async (t) => {
    const { app, output } = create(t)
    await app.register(realIp, { bindLogger: true })
    app.setNotFoundHandler(custom)
    await ask(app, '/missing')
    t.strictSame(output.bound(t), complete)
  })

  t.test('by a handler that was set before, but for the first line', async (t) => {
    const { app, output } = create(t)
    app.setNotFoundHandler(custom)
    await app.register(realIp, { bindLogger: true })
    await ask(app, '/missing')
    t.strictSame(output.bound(t), { ...complete, 'incoming request': undefined })
  })
})

t.test("requests that Fastify itself refuses are out of bindLogger's reach, and in that of the constructor's factory", async (t) => {
  const childLoggerFactory: FastifyInstance['childLoggerFactory'] = function (logger, bindings, options, raw) {
    return logger.child({ ...bindings, client: this.realIp?.lookup(raw).address }, options)
  }
  const { app, output } = create(t, {}, {
    childLoggerFactory,
    frameworkErrors (_error: Error, request: FastifyRequest, reply: { code (code: number): { send (text: string): void } }) {
      request.log.info('refused')
      reply.code(400).send('no')
    }
  })
  await app.register(realIp, { bindLogger: true })
  t.equal((await ask(app, '/%world')).statusCode, 400)
  t.strictSame(output.bound(t), { 'incoming request': undefined, refused: undefined })
  t.strictSame(output.bound(t, 'client'), { 'incoming request': CLIENT, refused: CLIENT })
})

t.test('beside @fastify/otel, whichever comes first', async (t) => {
  for (const first of ['otel', 'real-ip']) {
    const made = create(t)
    const otel = new FastifyOtelInstrumentation().plugin()
    if (first === 'otel') await made.app.register(otel)
    await made.app.register(realIp, { bindLogger: true })
    if (first !== 'otel') await made.app.register(otel)
    made.app.get('/', speak)
    await everyLine(t, made, '/')
    made.output.lines.length = 0
    t.equal((await ask(made.app, '/missing')).statusCode, 404)
    const bound = made.output.bound(t)
    // Its setNotFoundHandler() cannot be called as Fastify's can: without arguments.
    t.equal(bound['incoming request'], first === 'otel' ? undefined : CLIENT)
    t.match(bound, { 'Route GET:/missing not found': CLIENT, 'request completed': CLIENT })
  }
})

t.test('in sibling scopes, each has its lines', async (t) => {
  const made = create(t)
  for (const name of ['a', 'b']) {
    await made.app.register(async (child) => {
      await child.register(realIp, { bindLogger: true })
      child.get(`/${name}`, speak)
    })
  }
  for (const url of ['/a', '/b']) await everyLine(t, made, url)
})

t.test('bindLogger binds the lines of routes that are older than the plugin, but for the first', async (t) => {
  const { app, output } = create(t)
  app.register(realIp, { bindLogger: true })
  app.get('/', speak)
  await ask(app)
  t.strictSame(output.bound(t), { ...complete, 'incoming request': undefined })
})

t.test('bindLogger binds nothing where no address is known', async (t) => {
  const { app, output } = create(t)
  await app.register(realIp, { trustedPeers: [], bindLogger: true })
  app.get('/', speak)
  await app.inject({ url: '/', remoteAddress: 'nowhere' })
  t.strictSame(output.bound(t), { 'incoming request': undefined, 'in the handler': undefined, 'request completed': undefined })
})

t.test('no line is written before it is known who sent the connection', { skip: !linux && 'not Linux' }, async (t) => {
  const { app, output } = create(t, { serializers: { req: withRealIp() } })
  await app.register(realIp, { trustedPeers: ['127.0.0.1'], unverified: 'believe', bindLogger: true })
  app.get('/', (request) => {
    request.log.info('in the handler')
    return {}
  })
  const searches = holdSearches(t)
  const port = await listen(app)
  const [client] = await Promise.all([kinds[0]!.connect(port, { localAddress: '127.0.0.9' }), searches.waiting()])
  const answered = client.get('/')
  for (let turn = 0; turn < 10; turn++) await new Promise((resolve) => setImmediate(resolve))
  t.strictSame(output.bound(t), {})
  searches.release()
  await answered
  await client.close()
  await app.close()
  t.equal(output.find('incoming request').req.trust, 'untrusted')
  t.strictSame(output.bound(t), { 'incoming request': '127.0.0.9', 'in the handler': '127.0.0.9', 'request completed': '127.0.0.9' })
})

const wrong: Array<[what: string, call: () => unknown, says: RegExp]> = [
  ['an unknown name', () => withRealIp({ names: 'ecs' } as any), /'names' of .* takes 'plain', 'opentelemetry', not "ecs"/],
  ['a name from Object.prototype', () => withRealIp({ names: 'constructor' } as any), /not "constructor"/],
  ['an unknown option', () => withRealIp(undefined, { convention: 'opentelemetry' } as any), /no 'convention' in withRealIp\(\)'s options; write \{"names":"opentelemetry","mask":\{"ipv4":24,"ipv6":48\}\}/],
  ['no serializer', () => withRealIp('req' as any), /"req"/],
  ['null', () => withRealIp(null as any), /not null/],
  ['no options', () => withRealIp(() => ({}), 7 as any), /not 7/],
  ['no text', () => withRealIp({ names: 10n } as any), /not bigint/]
]
for (const [what, call, says] of wrong) {
  t.test(`withRealIp() refuses ${what}`, async (t) => {
    t.throws(call, { code: 'FST_REAL_IP_INVALID_OPTION', message: says })
  })
}

const wrongBindings: Array<[bindLogger: unknown, says: RegExp]> = [
  ['yes', /'bindLogger' must be true, false, or an object like \{ names: 'opentelemetry' \}, not "yes"/],
  [null, /'bindLogger' must be .* not null/],
  [{ names: 'ecs' }, /'names' of 'bindLogger' takes 'plain', 'opentelemetry', not "ecs"/],
  [{ name: 'plain' }, /no 'name' in 'bindLogger'/]
]
for (const [bindLogger, says] of wrongBindings) {
  t.test(`register refuses bindLogger: ${JSON.stringify(bindLogger)}`, async (t) => {
    const app = Fastify()
    t.teardown(() => app.close())
    await t.rejects(async () => app.register(realIp, { bindLogger } as FastifyRealIpOptions), { code: 'FST_REAL_IP_INVALID_OPTION', message: says })
  })
}
