import type net from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import realIp from 'fastify-real-ip'
import { kinds, listen } from '../kinds'
import { inLab } from './in-lab'
import { derivedAddress, type Oracle, type OracleTally } from './lab'

// The test that must fail when the plugin is wrong: faults.ts runs it against faults that were planted.

const CONNECTIONS = 300

/** Keeps a look at each request for later, with what is right by a way of its own. */
class Late {
  readonly #asks: Array<{ answer: () => string | undefined, expected: string }> = []
  readonly #ports = new WeakMap<object, number>()

  /** While getpeername is not rewritten, Node.js knows the client's port, from which the client's claim is derived. */
  watch (app: FastifyInstance): void {
    app.server.prependListener('connection', (socket: net.Socket) => { this.#ports.set(socket, socket.remotePort ?? 0) })
    app.server.on('session', (session: any) => { this.#ports.set(session, session.socket.remotePort) })
    app.addHook('onRequest', async (request) => {
      const raw = request.raw as any
      const port = this.#ports.get(raw.stream?.session ?? raw.socket) ?? this.#ports.get(raw.socket._parent)
      const expected = `${derivedAddress(port ?? 0)}:${port}`
      this.#asks.push({ answer: () => `${request.realIp}:${request.realAddress.port}`, expected })
    })
  }

  check (t: Test, count: number): void {
    const wrong = this.#asks.filter(({ answer, expected }) => answer() !== expected)
    t.equal(this.#asks.length, count)
    t.equal(wrong.length, 0, wrong[0] === undefined ? 'late answers' : `${wrong[0].answer()} instead of ${wrong[0].expected}`)
  }
}

function allRight (t: Test, tally: OracleTally, answers: number, what: string): void {
  const { right, wrong, errors } = tally
  t.same({ right, wrong, errors }, { right: answers, wrong: 0, errors: 0 },
    `${what} ${JSON.stringify(tally.samples[0] ?? tally.messages[0] ?? '')}`)
}

inLab('each connection has the address that its client claims', async (t, lab) => {
  const client = await lab.client()
  const oracle: Oracle = client.oracle()
  t.teardown(() => oracle.close())

  for (const kind of kinds) {
    if (kind.name === 'h2-http1') continue
    await t.test(kind.name, async (t) => {
      const app = kind.create({ forceCloseConnections: true })
      await app.register(realIp)
      app.get('/whoami', ({ realAddress: { address, port, source } }) => ({ realIp: address, port, source }))
      app.get('/unread', () => ({}))
      const late = new Late()
      late.watch(app)
      t.teardown(() => app.close())
      const port = await listen(app)
      const run = { port, protocol: kind.name as 'http', connections: CONNECTIONS }

      // 1348 alone, so that Node.js keeps an oracle of its own. Nothing asks before the client has gone and its
      // descriptor serves another.
      lab.module.start({ getpeername: false })
      client.set({})
      await oracle.run({ ...run, path: '/unread', expect: { address: undefined as never }, then: 'end' })
      allRight(t, await oracle.run({ ...run, source: 'vtoa', requests: 2, then: 'keep' }), CONNECTIONS * 2, 'at once')
      late.check(t, CONNECTIONS * 3)

      // The module goes: what was found stands.
      lab.module.stop()
      allRight(t, await oracle.again({ source: 'vtoa', requests: 2 }), CONNECTIONS * 2, 'after the module was stopped')
      await oracle.drop({ by: 'reset' })

      lab.module.start()
      client.set({ derive: 'v6' })
      allRight(t, await oracle.run({ ...run, source: 'vtoa' }), CONNECTIONS, 'IPv6')

      // An answer cut short behind its family must not be completed by the one before it.
      client.set({})
      allRight(t, await oracle.run({ ...run, source: 'vtoa' }), CONNECTIONS, 'IPv4 again')
      lab.module.start({ getpeername: false })
      lab.module.fault({ bytesWritten: 2 })
      allRight(t, await oracle.run({ ...run, connections: 20, concurrency: 1, expect: 'peer' }), 20, 'short answers')
      lab.module.fault()
    })
  }
})
