import { AsyncLocalStorage } from 'node:async_hooks'
import cluster from 'node:cluster'
import { once } from 'node:events'
import net from 'node:net'
import os from 'node:os'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Test } from 'tap'
import realIp, { type FastifyRealIpOptions, type RealAddress } from 'fastify-real-ip'
import { freePort } from '../free-port'
import { kinds, listen } from '../kinds'
import { balancerAddresses, hasIPv6, serverAddresses } from '../player/namespace'
import type { Player } from '../player/player'
import { testInNamespace } from '../player/test-in-namespace'
import { logOf } from '../trust/log'
import { inLab } from './in-lab'
import { handshakeOf, type Protocol, visit, type Visitor } from './trust-visit'
import { holdDumps, open, refuseDiag, sysctl } from './trust-lab'

// Connections that live on while the list is swapped, or that wait for their transport peer to be found.

const balancer = balancerAddresses.IPv4
const stranger = '198.51.100.66'
const claim = { address: '203.0.113.7', port: 51234 }
const protocols: Protocol[] = ['http', 'https', 'h2']

interface Served {
  readonly app: FastifyInstance
  readonly port: number
}

async function serve (
  t: Test, protocol: Protocol, options: FastifyRealIpOptions, routes: (app: FastifyInstance) => unknown = () => {}, fastify: object = {}
): Promise<Served> {
  const app = kinds.find(({ name }) => name === protocol)!.create({ forceCloseConnections: true, ...fastify })
  await app.register(realIp, options)
  app.get('/', (request) => request.realAddress)
  await routes(app)
  const sockets = new Set<net.Socket>()
  app.server.on('connection', (socket) => { sockets.add(socket) })
  t.teardown(async () => {
    // Node.js 24 waits for HTTP/2 sessions whose clients have gone in the middle of a request.
    for (const socket of sockets) socket.destroy()
    await app.close()
  })
  return { app, port: await listen(app, { host: hasIPv6() ? '::' : '0.0.0.0' }) }
}

/** Clients behind the balancer, each with a claim of its own. */
const crowd = (player: Player, port: number, protocol: Protocol, count: number): Promise<Visitor[]> =>
  Promise.all(Array.from({ length: count }, (_, n) =>
    visit(player, { protocol, port, source: balancer, claim: { address: `203.0.113.${n}`, port: 1 + n } })))

testInNamespace(__filename, () => {
  inLab('a list that is swapped', async (t, lab) => {
    lab.module.start()
    const player = open(t)

    for (const protocol of protocols) {
      await t.test(`${protocol}: evidence is remembered, the verdict follows the list`, async (t) => {
        const { app, port } = await serve(t, protocol, { trustedPeers: [balancer] })
        const visitor = await visit(player, { protocol, port, source: balancer, claim })
        const P = { address: balancer, port: visitor.sourcePort }
        const trusted = { ...claim, trust: 'trusted', transportPeer: P }
        const untrusted = { ...P, trust: 'untrusted', reason: 'untrusted-peer', transportPeer: P }
        t.match(await visitor.get(), trusted)
        app.realIp.setTrustedPeers([])
        t.match(await visitor.get(), untrusted)
        t.throws(() => app.realIp.setTrustedPeers(['10.0.0.1/8']), { code: 'FST_REAL_IP_INVALID_OPTION' })
        t.throws(() => app.realIp.setTrustedPeers(undefined as never), { code: 'FST_REAL_IP_INVALID_OPTION' })
        t.match(await visitor.get(), untrusted, 'an invalid list changes nothing')
        app.realIp.setTrustedPeers(({ address, port }) => address === balancer && port === visitor.sourcePort)
        t.match(await visitor.get(), trusted)
        app.realIp.setTrustedPeers('any')
        t.match(await visitor.get(), trusted)
        visitor.close()
      })

      await t.test(`${protocol}: a request keeps the answer it began with`, async (t) => {
        let enter!: () => void
        let leave!: () => void
        const entered = new Promise<void>((resolve) => { enter = resolve })
        const left = new Promise<void>((resolve) => { leave = resolve })
        const { app, port } = await serve(t, protocol, { trustedPeers: [balancer], untrusted: 'reject' }, (app) => {
          app.get('/slow', async (request) => {
            const before = request.realAddress
            enter()
            await left
            return [before, request.realAddress, app.realIp.lookup(request), request.realIp]
          })
        })
        const visitor = await visit(player, { protocol, port, source: balancer, claim })
        const answers = visitor.get('/slow')
        await entered
        app.realIp.setTrustedPeers([])
        leave()
        for (const answer of (await answers).slice(0, 3)) t.match(answer, { ...claim, trust: 'trusted' })
        t.equal((await answers)[3], claim.address)
        t.match(await visitor.get(), /^(reset|closed)$/, 'and the next one is not let in')
      })

      await t.test(`${protocol}: under reject a live connection that is no longer allowed is closed at its next request`, async (t) => {
        for (const path of ['/', '/child', '/nowhere']) {
          let handled = 0
          const count = async () => { handled++ }
          const options = { trustedPeers: [balancer], untrusted: 'reject' } as const
          const { app, port } = await serve(t, protocol, options, (app) => {
            app.addHook('preHandler', count)
            void app.register(async (child) => { child.get('/child', (request) => request.realAddress) })
          // The address is asked for before any hook runs.
          }, { genReqId: (raw: FastifyRequest['raw']) => (app as FastifyInstance).realIp.lookup(raw).address ?? '' })
          const visitor = await visit(player, { protocol, port, source: balancer, claim })
          const first = await visitor.get(path)
          t.not(first, 'reset', path)
          const before = handled
          app.realIp.setTrustedPeers([])
          t.match(await visitor.get(path), /^(reset|closed)$/, path)
          t.equal(handled, before, `${path}: no handler runs`)
          const next = await visit(player, { protocol, port, source: balancer, claim })
          t.equal(await next.get(path), 'reset')
          app.realIp.setTrustedPeers([balancer])
          const last = await visit(player, { protocol, port, source: balancer, claim })
          t.same(await last.get(path).then(({ transportPeer, ...same }) => same), await Promise.resolve(first).then(({ transportPeer, ...same }: RealAddress) => same))
          last.close()
        }
      })

      await t.test(`${protocol}: admit is asked again when the address changes`, async (t) => {
        const asked: string[] = []
        let handled = 0
        const { app, port } = await serve(t, protocol, {
          trustedPeers: [balancer],
          admit ({ address, trust }) {
            asked.push(`${address} ${trust}`)
            return address !== stranger
          }
        }, (app) => app.addHook('preHandler', async () => { handled++ }))
        const visitor = await visit(player, { protocol, port, source: balancer, claim: { ...claim, address: stranger } })
        t.equal(await visitor.get(), 'reset')
        app.realIp.setTrustedPeers([])
        const kept = await visit(player, { protocol, port, source: balancer, claim: { ...claim, address: stranger } })
        t.match(await kept.get(), { address: balancer })
        t.match(await kept.get(), { address: balancer })
        app.realIp.setTrustedPeers(['198.51.100.0/24'])
        t.match(await kept.get(), { address: balancer }, 'another list with the same answer')
        const before = handled
        app.realIp.setTrustedPeers([balancer])
        const atOnce = protocol === 'h2' ? [kept.get(), kept.get()] : [kept.get()]
        for (const answer of await Promise.all(atOnce)) t.match(answer, /^(reset|closed)$/)
        t.equal(handled, before, 'none is handled')
        t.same(asked, [`${stranger} trusted`, `${balancer} untrusted`, `${stranger} trusted`])
      })
    }

    await t.test('under load: no request sees a mixture', async (t) => {
      const client = await lab.client()
      const oracle = client.oracle()
      t.teardown(() => oracle.close())
      for (const protocol of protocols) {
        let mixed = 0
        const { app, port } = await serve(t, protocol, { trustedPeers: ['loopback'] }, (app) => {
          const see = ({ realIp, realAddress: { address, port, source, trust } }: FastifyRequest) => ({ realIp: address, port, source, same: realIp === address, trust })
          app.get('/mix', async (request) => {
            const seen = [see(request)]
            for (let turn = 0; turn < 3; turn++) {
              await new Promise((resolve) => setImmediate(resolve))
              seen.push(see(request))
            }
            const [first] = seen
            const whole = first!.same && first!.trust === (first!.source === 'vtoa' ? 'trusted' : 'untrusted')
            if (!whole || seen.some((each) => JSON.stringify(each) !== JSON.stringify(first))) mixed++
            return first
          })
        })
        let swaps = 0
        app.server.on(protocol === 'h2' ? 'stream' : 'request', () => {
          if (++swaps % 3 === 0) app.realIp.setTrustedPeers(swaps % 2 === 0 ? [] : ['loopback'])
        })
        const { right, errors, sources, samples } = await oracle.run({
          port, protocol, path: '/mix', connections: 60, requests: 10, expect: 'stamped-or-peer'
        })
        t.same([right, errors, samples], [600, 0, []], protocol)
        t.ok(sources.vtoa! > 50 && sources['transport-peer']! > 50, JSON.stringify(sources))
        t.equal(mixed, 0)
      }
    })
  })

  inLab('connections whose transport peer is still looked for', async (t, lab) => {
    sysctl(t, 'tcp_syncookies', 2)
    lab.module.start()
    const player = open(t)

    for (const protocol of [...protocols, 'h2c'] as const) {
      await t.test(`${protocol}: nothing of a connection reaches a listener, and its requests go on in their own context`, async (t) => {
        const dumps = holdDumps(t)
        const storage = new AsyncLocalStorage<number>()
        let requests = 0
        const app = kinds.find(({ name }) => name === protocol)!.create({ forceCloseConnections: true })
        const early: string[] = []
        for (const event of ['connection', 'secureConnection', 'session', 'stream', 'request', 'checkContinue', 'clientError', 'tlsClientError']) {
          app.server.prependListener(event, () => { early.push(event) })
        }
        app.addHook('onRequest', (request, _reply, done) => {
          requests++
          t.equal(app.realIp.lookup(request).trust, 'trusted', 'before the hook of the plugin')
          storage.run(requests, done)
        })
        app.addHook('onRequest', (request, _reply, done) => {
          (request as any).number = storage.getStore()
          done()
        })
        await app.register(realIp, { trustedPeers: [balancer] })
        app.get('/', (request) => ({ ...request.realAddress, sameContext: storage.getStore() === (request as any).number }))
        t.teardown(() => app.close())
        const port = await listen(app, { host: '0.0.0.0' })
        const first = await visit(player, { protocol, port, source: balancer, claim })
        t.match(await first.get(), { ...claim, trust: 'trusted' })
        early.splice(0)
        const visitors = await crowd(player, port, protocol, 20)
        const asked = visitors.map((visitor) => visitor.get())
        await dumps.waiting(20)
        t.same([early, requests], [[], 1], 'all but the first')
        t.same(visitors.map((visitor) => visitor.received()), Array(20).fill(0), 'and nothing was sent to them')
        dumps.release()
        const settler = await visit(player, { protocol, port, source: balancer, claim })
        const answers = await Promise.all(asked)
        answers.forEach((answer, n) => t.match(answer, {
          address: `203.0.113.${n}`, port: 1 + n, trust: 'trusted', transportPeer: { address: balancer, port: visitors[n]!.sourcePort }, sameContext: true
        }))
        for (const visitor of [first, ...visitors, settler]) visitor.close()
      })
    }

    await t.test('an upgrade waits like any other request', async (t) => {
      const dumps = holdDumps(t)
      const heard: string[] = []
      const { app, port } = await serve(t, 'http', { trustedPeers: [balancer] })
      app.server.on('upgrade', (request, socket) => {
        heard.push(app.realIp.lookup(request).address ?? '')
        socket.end('HTTP/1.1 101 Switching Protocols\r\n\r\n')
      })
      const connect = async () => {
        const connection = await player.connect({ source: balancer, destination: serverAddresses.IPv4, port, ...handshakeOf({ claim }) })
        connection.write('GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n')
        return connection
      }
      const first = await connect()
      t.match(String((await once(first, 'data'))[0]), /^HTTP\/1\.1 101 /)
      const second = await connect()
      await dumps.waiting(1)
      t.same(heard, [claim.address])
      const answer = once(second, 'data')
      dumps.release()
      t.match(String((await answer)[0]), /^HTTP\/1\.1 101 /)
      t.same(heard, [claim.address, claim.address])
      for (const connection of [first, second]) connection.destroy()
    })

    for (const protocol of protocols) {
      await t.test(`${protocol}: no handler runs before admit has decided`, async (t) => {
        for (const policy of [{}, { trustedPeers: [balancer], invalid: 'ignore' }] as const) {
          let asked = 0
          let handled = 0
          const { port } = await serve(t, protocol, {
            ...policy,
            admit () {
              asked++
              return false
            }
          }, (app) => { app.addHook('preHandler', async () => { handled++ }) })
          const visitors = await Promise.all(Array.from({ length: 10 }, () =>
            visit(player, { protocol, port, source: balancer, claim: { address: '0.0.0.0', port: 1 } })))
          for (const answer of await Promise.all(visitors.map((visitor) => visitor.get()))) t.match(answer, /^(reset|closed)$/)
          t.equal(handled, 0)
          t.equal(asked, 10)
        }
      })

      await t.test(`${protocol}: clients that leave while they wait, whose descriptors serve others`, async (t) => {
        const { port } = await serve(t, protocol, { trustedPeers: [balancer] })
        for (let round = 0; round < 3; round++) {
          const leaving = await crowd(player, port, protocol, 10)
          const asked = leaving.map((visitor) => visitor.get())
          await Promise.race(asked.slice(0, 1))
          leaving.slice(1).forEach((visitor) => visitor.close())
          const staying = await crowd(player, port, protocol, 10)
          const answers = await Promise.all(staying.map((visitor) => visitor.get()))
          answers.forEach((answer, n) => t.match(answer, {
            address: `203.0.113.${n}`, port: 1 + n, trust: 'trusted', transportPeer: { address: balancer, port: staying[n]!.sourcePort }
          }))
          staying.forEach((visitor) => visitor.close())
          leaving[0]!.close()
          asked.forEach((answer) => { answer.catch(() => {}) })
        }
      })
    }

    await t.test('a server that closes lets go of those that wait', async (t) => {
      const { app, port } = await serve(t, 'http', { trustedPeers: [balancer] })
      const visitors = await crowd(player, port, 'http', 10)
      const answers = visitors.map((visitor) => visitor.get())
      await answers[0]
      await app.close()
      for (const answer of await Promise.all(answers)) t.ok(answer)
    })
  })

  inLab('witnesses of TOA under SYN cookies', async (t, lab) => {
    // A module that answers 1348 and leaves getpeername alone contradicts nobody.
    lab.module.start({ getpeername: false })
    const player = open(t)
    for (const cookies of [1, 2]) {
      sysctl(t, 'tcp_syncookies', cookies)
      for (const sources of [['vtoa', 'getpeername', 'saved-syn'], ['vtoa', 'saved-syn', 'getpeername'], ['vtoa', 'getpeername'], 'auto'] as const) {
        const { port } = await serve(t, 'http', { trustedPeers: [balancer], toa: 'alibaba', sources })
        const visitors = await crowd(player, port, 'http', 5)
        for (const answer of await Promise.all(visitors.map((visitor) => visitor.get()))) {
          t.match(answer, { source: 'vtoa', trust: 'trusted', reason: undefined }, `${sources}, tcp_syncookies=${cookies}`)
        }
        visitors.forEach((visitor) => visitor.close())
      }
    }
  })

  inLab('what is warned of', async (t, lab) => {
    const player = open(t)
    const ask = async (port: number, source: string, of: typeof claim | null = claim): Promise<RealAddress> => {
      const visitor = await visit(player, { protocol: 'http', port, source, claim: of ?? undefined })
      const answer = await visitor.get()
      visitor.close()
      return answer
    }

    await t.test('trustProxy beside a module that rewrites the remote address', async (t) => {
      lab.module.start()
      for (const trustProxy of [false, true]) {
        const { logger, codes } = logOf()
        const { port } = await serve(t, 'http', { trustedPeers: [balancer] }, () => {}, { loggerInstance: logger, trustProxy })
        await ask(port, balancer, null)
        t.same(codes, [], 'not without a claim')
        for (let n = 0; n < 3; n++) await ask(port, balancer)
        t.same(codes, trustProxy ? ['FST_REAL_IP_TRUST_PROXY'] : [])
      }
    })

    await t.test('saved SYNs that come back empty', async (t) => {
      lab.module.start()
      const { logger, codes } = logOf()
      const { port } = await serve(t, 'http', { trustedPeers: [balancer] }, () => {}, { loggerInstance: logger })
      await ask(port, balancer)
      t.same(codes, [])
      sysctl(t, 'tcp_syncookies', 2)
      for (let n = 0; n < 3; n++) await ask(port, balancer)
      t.same(codes, ['FST_REAL_IP_EMPTY_SYN'])
    })

    await t.test('sources that disagree, but not where nobody can tell', async (t) => {
      for (const refused of [false, true]) {
        if (refused) refuseDiag(t)
        // Only 1348 has the claim, and getpeername is true.
        lab.module.start({ getpeername: false })
        const { logger, codes } = logOf()
        const { port } = await serve(t, 'http', { trustedPeers: [balancer] }, () => {}, { loggerInstance: logger })
        t.match(await ask(port, balancer), { ...claim, source: 'vtoa' })
        t.same(codes, refused ? ['FST_REAL_IP_NO_SOCK_DIAG'] : [], refused ? 'sock_diag refused' : 'getpeername is true')
      }
    })

    await t.test('the first peer that is not in the list, where it is this host', async (t) => {
      lab.module.start()
      const client = await lab.client(null)
      const oracle = client.oracle()
      t.teardown(() => oracle.close())
      const { networkInterfaces } = os
      t.teardown(() => { os.networkInterfaces = networkInterfaces })
      for (const [host, source, sidecar] of [
        ['127.0.0.1', undefined, true], [serverAddresses.IPv4, undefined, true], [serverAddresses.IPv4, stranger, false]
      ] as const) {
        const { logger, codes } = logOf()
        const { port } = await serve(t, 'http', { trustedPeers: [balancer] }, () => {}, { loggerInstance: logger })
        for (let n = 0; n < 2; n++) {
          if (source === undefined) await oracle.run({ host, port })
          else await ask(port, source)
        }
        t.same(codes, sidecar ? ['FST_REAL_IP_SIDECAR'] : [], `${host} from ${source}`)
      }

      // As it does where no descriptor is left.
      os.networkInterfaces = () => { throw new Error('uv_interface_addresses returned EMFILE') }
      const { port } = await serve(t, 'http', { trustedPeers: [balancer] })
      t.match(await ask(port, stranger), { address: stranger, trust: 'untrusted' })
    })
  })

  inLab('workers that share a port, each with its own listening socket', async (t, lab) => {
    const [major, minor] = process.versions.node.split('.').map(Number) as [number, number]
    if (major < 22 || (major === 22 && minor < 12)) {
      await t.test('reusePort', { skip: 'Node.js 22.12' }, () => {})
      return
    }
    lab.module.start()
    const client = await lab.client()
    const oracle = client.oracle()
    t.teardown(() => oracle.close())
    const port = await freePort()
    cluster.setupPrimary({ exec: require.resolve('../node/worker'), args: [] })
    for (const [trustedPeers, expect] of [[['loopback'], 'stamped'], [['10.0.0.0/8'], 'peer']] as const) {
      const order = JSON.stringify({ plugin: { trustedPeers }, listen: { host: '127.0.0.1', port, reusePort: true } })
      const workers = [1, 2].map(() => cluster.fork({ FASTIFY_REAL_IP_ORDER: order }))
      await Promise.all(workers.map((worker) => once(worker, 'message')))
      const { right, wrong, errors, samples } = await oracle.run({ port, connections: 200, expect, source: expect === 'peer' ? 'transport-peer' : 'vtoa' })
      t.same([right, wrong, errors, samples], [200, 0, 0, []], `${trustedPeers}`)
      await Promise.all(workers.map((worker) => {
        worker.send('end')
        return once(worker, 'exit')
      }))
    }
  })

  inLab('an abandoned connection', async (t, lab) => {
    lab.module.start()
    const player = open(t)
    for (const protocol of protocols) {
      const { app, port } = await serve(t, protocol, { trustedPeers: [balancer], admit: () => true })
      const accepted = once(app.server, 'connection')
      const connection = await player.connect({ source: stranger, destination: serverAddresses.IPv4, port, ...handshakeOf({ claim }) })
      connection.destroy()
      const [socket] = await accepted
      if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve))
      t.match(app.realIp.lookup(socket), { address: stranger, trust: 'untrusted', reason: 'untrusted-peer' }, protocol)
    }
  })
})
