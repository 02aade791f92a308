import t from 'tap'
import type { FastifyRequest } from 'fastify'
import realIp from 'fastify-real-ip'
import type { RealAddress } from 'fastify-real-ip'
import { CLIENT, kinds, listen } from '../kinds'

type Told = RealAddress & { realIp: string | undefined, lookedUp: Array<string | undefined> }

const kernel = process.platform === 'linux' ? 'getpeername' : 'peer'

for (const kind of kinds) {
  t.test(kind.name, async (t) => {
    const app = kind.create({ connectionTimeout: 0 })
    await app.register(realIp)
    const told = new Map<string, (answer: Told) => void>()
    const tell = (place: string) => async (request: FastifyRequest) => {
      const lookedUp = [request, request.raw].map((object) => app.realIp.lookup(object).address)
      told.get(place)?.({ ...request.realAddress, realIp: request.realIp, lookedUp })
    }
    const heard = (place: string) => new Promise<Told>((resolve) => { told.set(place, resolve) })
    app.addHook('onResponse', tell('onResponse'))
    app.addHook('onRequestAbort', tell('onRequestAbort'))
    app.addHook('onTimeout', tell('onTimeout'))
    // Nothing asks for the address before the client has gone.
    app.get('/hang', (request) => {
      told.get('handler')?.({} as Told)
      request.raw.once('close', () => setImmediate(() => { tell('after close')(request) }))
      return new Promise(() => {})
    })
    app.get('/', async () => ({}))
    t.teardown(() => app.close())
    const port = await listen(app)

    t.test('onResponse', async (t) => {
      const answer = heard('onResponse')
      const client = await kind.connect(port, { localAddress: CLIENT })
      await client.get('/')
      t.match(await answer, { realIp: CLIENT, address: CLIENT, port: client.localPort, source: kernel })
      await client.close()
    })

    t.test('onRequestAbort, and a handler that wakes after the client has gone', async (t) => {
      const [aborted, closed, handling] = [heard('onRequestAbort'), heard('after close'), heard('handler')]
      const client = await kind.connect(port, { localAddress: CLIENT })
      client.socket.on('error', () => {})
      client.get('/hang').catch(() => {})
      await handling
      client.socket.resetAndDestroy()
      const expected = { realIp: CLIENT, address: CLIENT, port: client.localPort, source: kernel, lookedUp: [CLIENT, CLIENT] }
      t.match(await aborted, expected)
      t.match(await closed, expected)
    })

    // On the timeout of an HTTP/2 stream Fastify's own handler throws before it comes to the hook: a stream has no _meta.
    if (kind.name !== 'h2c' && kind.name !== 'h2') {
      t.test('onTimeout', async (t) => {
        const answer = heard('onTimeout')
        const handling = heard('handler')
        const client = await kind.connect(port, { localAddress: CLIENT })
        client.socket.on('error', () => {})
        client.get('/hang').catch(() => {})
        app.server.once('request', (request) => request.socket.setTimeout(1))
        await handling
        t.match(await answer, { realIp: CLIENT, address: CLIENT, port: client.localPort, source: kernel })
        await client.close()
      })
    }
  })
}
