import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import realIp, { type FastifyRealIpOptions, type RealAddress } from 'fastify-real-ip'
import { loadLibc, type Libc } from '../../lib/kernel/libc'
import { PeerSearch } from '../../lib/kernel/peer-search'
import { kinds, listen } from '../kinds'
import { balancerAddresses } from '../player/namespace'
import type { Player } from '../player/player'
import { testInNamespace } from '../player/test-in-namespace'
import { logOf } from '../trust/log'
import { inLab } from './in-lab'
import { holdDumps, open, refuseDiag, sysctl } from './trust-lab'
import { type Protocol, type Visit, visit } from './trust-visit'

// What is made of claims beside the decision table: who is asked about them, what is counted, what is spent.

const balancer = balancerAddresses.IPv4
const stranger = '198.51.100.66'
const claim = { address: '203.0.113.7', port: 51234 }
const impossible = { address: '127.0.0.1', port: 51234 }
const protocols: Protocol[] = ['http', 'https', 'h2']

interface Served {
  readonly app: FastifyInstance
  readonly port: number
  readonly codes: string[]
}

interface Setting {
  readonly protocol?: Protocol
  readonly fastify?: object
  readonly prepare?: (app: FastifyInstance) => void
}

async function serve (t: Test, options: FastifyRealIpOptions, { protocol = 'http', fastify = {}, prepare = () => {} }: Setting = {}): Promise<Served> {
  const { logger, codes } = logOf()
  const app = kinds.find(({ name }) => name === protocol)!.create({ forceCloseConnections: true, loggerInstance: logger, ...fastify })
  await app.register(realIp, options)
  app.get('/', (request) => request.realAddress)
  prepare(app)
  t.teardown(() => app.close())
  return { app, port: await listen(app, { host: '0.0.0.0' }), codes }
}

async function ask (player: Player, port: number, of: Partial<Visit> = {}): Promise<RealAddress | 'reset' | 'closed'> {
  const visitor = await visit(player, { protocol: 'http', port, source: balancer, ...of })
  try {
    return await visitor.get()
  } finally {
    visitor.close()
  }
}

testInNamespace(__filename, () => {
  inLab('admit without a list', async (t, lab) => {
    lab.module.start()
    const player = open(t)
    for (const protocol of protocols) {
      const asked: string[] = []
      const { app, port } = await serve(t, {
        admit ({ address, source, trust }) {
          asked.push(`${address} ${source} ${trust}`)
          return address !== stranger
        }
      }, { protocol })
      t.equal(await ask(player, port, { protocol, claim: { ...claim, address: stranger } }), 'reset', protocol)
      t.match(await ask(player, port, { protocol, claim }), { ...claim, source: 'vtoa', trust: 'unchecked' })
      t.match(await ask(player, port, { protocol }), { address: balancer, source: 'getpeername' })
      t.same(asked, [`${stranger} vtoa unchecked`, `${claim.address} vtoa unchecked`, `${balancer} getpeername unchecked`])
      t.equal(app.realIp.stats().rejected, 1)
    }
  })

  inLab('a connection of which no source knows anything has nothing of the one before', async (t, lab) => {
    lab.module.start()
    const player = open(t)
    const policed = await serve(t, { sources: ['vtoa'], trustedPeers: [balancer] })
    t.match(await ask(player, policed.port, { claim }), { ...claim, trust: 'trusted' })
    t.match(await ask(player, policed.port), { address: balancer, source: 'transport-peer', reason: 'no-toa', attempts: [{ source: 'vtoa', reason: 'ESRCH' }] })
    const open_ = await serve(t, { sources: ['vtoa'] })
    t.match(await ask(player, open_.port, { claim }), { ...claim, source: 'vtoa' })
    t.match(await ask(player, open_.port), { address: balancer, source: 'peer', reason: 'no-answer' })
    sysctl(t, 'tcp_syncookies', 2)
    t.match(await ask(player, policed.port, { claim }), { ...claim, trust: 'trusted' })
    t.match(await ask(player, policed.port), { address: balancer, source: 'transport-peer', reason: 'no-toa' })
  })

  inLab('what is counted where course and ruling alone do not tell', async (t, lab) => {
    lab.module.start()
    const player = open(t)
    const listed = await serve(t, { trustedPeers: [balancer], invalid: 'ignore', toa: 'alibaba' })
    for (let n = 0; n < 2; n++) {
      t.match(await ask(player, listed.port, { claim: impossible }), { reason: 'implausible' })
      t.match(await ask(player, listed.port, { claim, claimOnSyn: { ...claim, address: stranger } }), { reason: 'ambiguous' })
    }
    t.match(listed.app.realIp.stats(), { connections: 4, reason: { implausible: 2, ambiguous: 2 } })

    const any = { sources: ['getpeername'], trustedPeers: 'any', invalid: 'ignore' } as const
    const found = await serve(t, any)
    t.match(await ask(player, found.port, { claim: impossible }), { source: 'transport-peer' })
    t.match(found.app.realIp.stats(), { connections: 1, source: { 'transport-peer': 1, none: 0 }, reason: { implausible: 1 } })
    sysctl(t, 'tcp_syncookies', 2)
    refuseDiag(t)
    const unknown = await serve(t, any)
    t.match(await ask(player, unknown.port, { claim: impossible }), { source: 'none', reason: 'implausible' })
    t.match(unknown.app.realIp.stats(), { connections: 1, source: { 'transport-peer': 0, none: 1 }, reason: { implausible: 1 } })
  })

  inLab('trustProxy is warned of where remote addresses are rewritten, and nowhere else', async (t, lab) => {
    const player = open(t)
    const plain = await serve(t, {}, { fastify: { trustProxy: true } })
    const policed = await serve(t, { trustedPeers: [balancer] }, { fastify: { trustProxy: true } })
    const askBoth = async () => {
      for (const { port } of [plain, policed]) await ask(player, port, { claim })
      return [plain.codes, policed.codes]
    }
    t.same(await askBoth(), [['FST_REAL_IP_FORGEABLE'], []])
    lab.module.start({ getsockopt: false })
    t.same(await askBoth(), [['FST_REAL_IP_FORGEABLE'], ['FST_REAL_IP_TRUST_PROXY']])
  })

  inLab('of virtual servers is told what is believed', async (t, lab) => {
    lab.module.start({ virtualServer: [1345] })
    const player = open(t)
    // Kind 252, vtoa's longer form: client, VPC, virtual server.
    const toa = Uint8Array.of(252, 20, 0xc8, 0x22, 203, 0, 113, 7, 7, 0, 0, 0, 192, 0, 2, 80, 0, 80, 0, 0)
    const { port } = await serve(t, { trustedPeers: [balancer], virtualServer: true })
    t.match(await ask(player, port, { toa }), { ...claim, virtualServer: { address: '192.0.2.80', port: 80 } })
    const refused = await ask(player, port, { source: stranger, toa })
    t.match(refused, { address: stranger, reason: 'untrusted-peer' })
    t.notHas(refused, { virtualServer: {} })

    const open_ = await serve(t, { virtualServer: true })
    t.match(await ask(player, open_.port, { toa }), { ...claim, trust: 'unchecked', virtualServer: { address: '192.0.2.80', port: 80 } })
    t.match(await ask(player, open_.port), { address: balancer, source: 'getpeername', trust: 'unchecked', virtualServer: undefined })
    const implausible = Uint8Array.from(toa)
    implausible[4] = 127
    const none = await ask(player, open_.port, { toa: implausible })
    t.match(none, { reason: 'implausible' })
    t.notHas(none, { virtualServer: {} })
  })

  inLab('a request without a policy keeps the answer that it was first given, which is the last', async (t, lab) => {
    sysctl(t, 'tcp_syncookies', 2)
    lab.module.start()
    const player = open(t)
    const dumps = holdDumps(t)
    const seen: Array<Array<string | undefined>> = []
    const { port } = await serve(t, {}, {
      prepare (app) {
        app.addHook('onRequest', async (request) => {
          const first = request.realIp
          await new Promise((resolve) => setImmediate(resolve))
          seen.push([first, request.realIp, request.realAddress.address, app.realIp.lookup(request).address])
        })
      }
    })
    await ask(player, port, { claim: impossible })
    const early = ask(player, port, { claim: impossible })
    await dumps.waiting(1)
    t.equal(seen.length, 1, 'before it is known nobody can ask')
    dumps.release()
    await ask(player, port, { claim: impossible })
    await early
    t.same(seen, Array(3).fill(Array(4).fill(balancer)))
  })

  inLab('a list that is swapped by those who are asked', async (t, lab) => {
    lab.module.start()
    const player = open(t)

    await t.test('by trustedPeers: the next request is judged anew', async (t) => {
      const { app, port } = await serve(t, {
        trustedPeers () {
          app.realIp.setTrustedPeers([balancer])
          return false
        },
        missing: 'reject',
        admit: () => true
      })
      const visitor = await visit(player, { protocol: 'http', port, source: balancer })
      t.match(await visitor.get(), /^(reset|closed)$/)
    })

    await t.test('by admit: a request has the answer that admit was asked about', async (t) => {
      const asked: string[] = []
      const { app, port } = await serve(t, {
        trustedPeers: [],
        admit ({ address, trust }) {
          asked.push(`${address} ${trust}`)
          if (trust === 'trusted') {
            app.realIp.setTrustedPeers([])
            return true
          }
          return asked.length === 1
        }
      })
      const visitor = await visit(player, { protocol: 'http', port, source: balancer, claim })
      t.match(await visitor.get(), { address: balancer, trust: 'untrusted' })
      app.realIp.setTrustedPeers([balancer])
      t.match(await visitor.get(), { ...claim, trust: 'trusted' })
      t.match(await visitor.get(), /^(reset|closed)$/, 'the next request is asked about again')
      t.same(asked, [`${balancer} untrusted`, `${claim.address} trusted`, `${balancer} untrusted`])
    })
  })

  inLab('a logger that throws harms no connection', async (t, lab) => {
    lab.module.start()
    const player = open(t)
    const { logger } = logOf()
    const fail = () => { throw new Error('a serializer of the user') }
    const failing = Object.assign(logger, { error: fail, warn: fail })
    const refusing = await serve(t, { admit: () => { throw new Error('no') } }, { fastify: { loggerInstance: failing } })
    const { port } = await serve(t, { trustedPeers: [balancer], admit: ({ address }) => address === claim.address || fail() }, { fastify: { loggerInstance: failing } })
    for (const cookies of [0, 2]) {
      sysctl(t, 'tcp_syncookies', cookies)
      t.equal(await ask(player, refusing.port, { claim }), 'reset')
      const answers = await Promise.all(Array.from({ length: 8 }, (_, n) => ask(player, port, { claim: n === 3 ? { ...claim, address: stranger } : claim })))
      t.match(answers.map((answer) => typeof answer === 'string' ? answer.replace('closed', 'reset') : answer.address), Array.from({ length: 8 }, (_, n) => n === 3 ? 'reset' : claim.address))
    }
    t.equal(refusing.app.realIp.stats().connections, 2)
  })

  inLab('another program that rewrites getpeername too is noticed, by one connection in many', async (t, lab) => {
    const player = open(t)
    const { disagrees } = PeerSearch.prototype
    t.teardown(() => { PeerSearch.prototype.disagrees = disagrees })
    let looked = 0
    PeerSearch.prototype.disagrees = function (...args) {
      looked++
      return disagrees.apply(this, args)
    }
    const list = { trustedPeers: [balancer] }
    for (const [options, cookies, warned] of [
      [{}, 1, ['FST_REAL_IP_FORGEABLE']], [list, 1, []], [list, 2, ['FST_REAL_IP_EMPTY_SYN']]
    ] as const) {
      sysctl(t, 'tcp_syncookies', cookies)
      for (const namePort of [undefined, 9]) {
        lab.module.start()
        lab.module.fault(namePort === undefined ? {} : { namePort })
        const { port, codes } = await serve(t, options)
        looked = 0
        for (let n = 0; n < 3; n++) t.match(await ask(player, port, { claim }), { ...claim, source: 'vtoa' })
        t.same([...codes].sort(), [...warned, ...(namePort === undefined ? [] : ['FST_REAL_IP_DISAGREE'])].sort(), `syncookies ${cookies}, port ${namePort}`)
        t.equal(looked, 1)
      }
    }
    lab.module.fault()
  })

  inLab('without a policy nothing more than one call is spent on a connection', async (t) => {
    const player = open(t)
    const libc = loadLibc() as Libc
    const calls: string[] = []
    for (const name of ['getsockopt', 'setsockopt', 'getpeername', 'getsockname', 'readSavedSyn', 'openDiag'] as const) {
      const call = libc[name] as (...args: number[]) => unknown
      Object.assign(libc, {
        [name]: (...args: number[]) => {
          calls.push(name)
          return call(...args)
        }
      })
      t.teardown(() => Object.assign(libc, { [name]: call }))
    }
    for (const options of [{}, { admit: () => true }]) {
      const { port } = await serve(t, options)
      calls.splice(0)
      const ways: string[][] = []
      for (let n = 0; n < 4; n++) {
        t.match(await ask(player, port), { address: balancer })
        ways.push(calls.splice(0))
      }
      for (const way of ways) t.match(way.join(' '), /^(getsockopt )?getpeername$/, '1348 only while it may be there')
      t.ok(ways.some((way) => way.length === 1))
    }
  })
})
