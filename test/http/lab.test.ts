import { join } from 'node:path'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import realIp, { withRealIp } from 'fastify-real-ip'
import { startExample } from '../examples/example'
import { redisUnavailable, startRedis } from '../examples/redis'
import { inLab } from '../lab/in-lab'
import type { Lab, Stamp } from '../lab/lab'
import { listen } from '../kinds'
import type { Asked } from './ask'

const BALANCER = '127.0.0.1'
const STRANGER = '127.0.0.66'
const TRUSTED_PEERS = BALANCER
const BUDGET = 5

const ok = (count: number) => Array<number>(count).fill(200)
const limited = (count: number) => Array<number>(count).fill(429)

/** Clients behind one balancer, and a stranger who writes TOA himself, ask servers with one budget of 5 for each client. */
async function judge (t: Test, lab: Lab, ports: readonly number[]): Promise<void> {
  const client = await lab.client()
  async function ask (stamp: Stamp | null, count: number, localAddress = BALANCER): Promise<number[]> {
    client.set(stamp)
    const asked: Asked = { ports, count, localAddress }
    const { stdout, stderr, code } = await client.run(process.execPath, [join(__dirname, 'ask.js'), JSON.stringify(asked)])
    if (code !== 0) throw new Error(stderr)
    return JSON.parse(stdout)
  }
  const noisy = { address: '198.51.100.23' }
  const victim = { address: '198.51.100.24' }
  const sameNetwork = (host: number) => ({ address: `2001:db8:5::${host}` })

  t.same(await ask(noisy, 12), [...ok(BUDGET), ...limited(7)], 'a noisy client is limited')
  t.same(await ask({}, 20), ok(20), 'its neighbours behind the same balancer, an address each, are not')

  t.same(await ask(victim, 12, STRANGER), [...ok(BUDGET), ...limited(7)], 'a stranger who claims one address is limited')
  t.same(await ask({}, 12, STRANGER), limited(12), 'by his own address: claiming ever others buys nothing')
  t.same(await ask(victim, BUDGET), ok(BUDGET), 'and takes nothing from whom he claimed to be')

  t.same(await ask(null, 7), [...ok(BUDGET), ...limited(2)], 'those who come without TOA share one budget')
  t.same(await ask({ address: '198.51.100.25' }, BUDGET), ok(BUDGET), 'which is nobody else\'s')

  const rotating = []
  for (let host = 1; host <= 7; host++) rotating.push(...await ask(sameNetwork(host), 1))
  t.same(rotating, [...ok(BUDGET), ...limited(2)], 'an IPv6 client is its /64')
  t.same(await ask({ address: '2001:db8:6::1' }, 1), ok(1), 'and another /64 is another')
}

inLab('a budget for each real client, on one machine', async (t, lab) => {
  lab.module.start()
  const { port } = await startExample(t, 'rate-limit', { TRUSTED_PEERS })
  await judge(t, lab, [port])
})

const twoServers = 'a budget for each real client, over two servers that count in one Redis'
const noRedis = redisUnavailable()
if (noRedis !== undefined && process.env.FASTIFY_REAL_IP_LAB !== 'required') {
  t.test(twoServers, { skip: noRedis }, () => {})
} else {
  inLab(twoServers, async (t, lab) => {
    lab.module.start()
    const REDIS = await startRedis(t)
    const servers = await Promise.all([1, 2].map(() => startExample(t, 'rate-limit-redis', { TRUSTED_PEERS, REDIS })))
    await judge(t, lab, servers.map(({ port }) => port))
  })
}

inLab('what is counted and logged of those who come through a balancer', async (t, lab) => {
  lab.module.start()
  const lines: any[] = []
  const stream = { write (line: string) { lines.push(JSON.parse(line)) } }
  const app = Fastify({ logger: { stream, serializers: { req: withRealIp() } } })
  await app.register(realIp, { trustedPeers: [BALANCER], bindLogger: true })
  app.get('/', () => 'ok')
  t.teardown(() => app.close())
  const ports = [await listen(app)]
  const client = await lab.client()
  const visit = async (stamp: Stamp | null, count: number, localAddress = BALANCER) => {
    client.set(stamp)
    const asked: Asked = { ports, count, localAddress }
    await client.run(process.execPath, [join(__dirname, 'ask.js'), JSON.stringify(asked)])
  }

  await visit({ address: '198.51.100.23', port: 4321 }, 3)
  await visit(null, 2)
  await visit({ address: '198.51.100.23', port: 4321 }, 4, STRANGER)
  const { connections, rejected, source, trust, reason } = app.realIp.stats()
  t.match({ connections, rejected, source, trust, reason }, {
    connections: 9,
    rejected: 0,
    source: { vtoa: 3, getpeername: 0, 'transport-peer': 6, none: 0 },
    trust: { trusted: 5, untrusted: 4, unverified: 0, unchecked: 0 },
    reason: { 'no-toa': 2, 'untrusted-peer': 4 }
  })

  const requests = lines.filter(({ msg }) => msg === 'incoming request')
  const claimed = requests.filter(({ req }) => req.source === 'vtoa')
  t.equal(claimed.length, 3)
  for (const { realIp, req } of claimed) {
    t.equal(realIp, '198.51.100.23')
    t.match(req, { realIp: '198.51.100.23', realPort: 4321, trust: 'trusted', transportPeer: { address: BALANCER, port: Number } })
  }
  const forged = requests.filter(({ req }) => req.reason === 'untrusted-peer')
  t.equal(forged.length, 4)
  for (const { realIp, req } of forged) {
    t.equal(realIp, STRANGER)
    t.match(req, { realIp: STRANGER, source: 'transport-peer', trust: 'untrusted', transportPeer: { address: STRANGER } })
  }
})
