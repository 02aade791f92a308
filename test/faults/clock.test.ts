import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import realIp from 'fastify-real-ip'
import { inLab } from '../lab/in-lab'
import { open, sysctl } from '../lab/trust-lab'
import { visit } from '../lab/trust-visit'
import { kinds, listen } from '../kinds'
import type { Noticed } from '../package/serve-once'
import { balancerAddresses } from '../player/namespace'
import { testInNamespace } from '../player/test-in-namespace'

const DAY = 86_400_000
const YEAR = 31_536_000
const balancer = balancerAddresses.IPv4

/** Each look at the wall clock is a day before, or after, the true time. */
function jump (): typeof Date {
  const TrueDate = Date
  let ahead = false
  const now = (): number => {
    ahead = !ahead
    return TrueDate.now() + (ahead ? DAY : -DAY)
  }
  return class extends TrueDate {
    constructor (given: number | string | Date = now()) { super(given) }

    static override now = now
  } as typeof Date
}

testInNamespace(__filename, () => {
  // SYN cookies and a module: each sender must be looked for, as often as the clock allows.
  inLab('the wall clock jumps a day ahead and a day back', async (t, lab) => {
    sysctl(t, 'tcp_syncookies', 2)
    lab.module.start()
    const TrueDate = Date
    globalThis.Date = jump()
    t.teardown(() => { globalThis.Date = TrueDate })
    const first = Date.now()
    t.ok(Date.now() < first - DAY, 'it does')
    const app = kinds[0]!.create({ forceCloseConnections: true, logger: { level: 'silent' } })
    await app.register(realIp, { trustedPeers: [balancer], admit: () => true })
    app.get('/', (request) => request.realAddress)
    t.teardown(() => app.close())
    const port = await listen(app, { host: '0.0.0.0' })
    const player = open(t)
    for (let round = 0; round < 3; round++) {
      await Promise.all(Array.from({ length: 20 }, async (_, n) => {
        const claim = { address: `203.0.113.${n}`, port: 1000 + round }
        const visitor = await visit(player, { protocol: 'http', port, source: balancer, claim })
        t.match(await visitor.get(), { ...claim, source: 'vtoa', trust: 'trusted', transportPeer: { address: balancer, port: visitor.sourcePort } })
        visitor.close()
      }))
    }
  })

  t.test('the clocks that never jump begin a year later, in a time namespace', {
    skip: !existsSync('/proc/self/timens_offsets') && 'time namespaces need Linux 5.6'
  }, async (t) => {
    const later = ['--time', '--monotonic', String(YEAR), '--boottime', String(YEAR), '--fork', '--kill-child', '--']
    const [here, there] = [[], later].map((flags) =>
      Number(execFileSync('unshare', [...flags, process.execPath, '-p', 'process.hrtime()[0]'], { encoding: 'utf8' })))
    t.ok(there! >= here! + YEAR, 'they do')
    for (const options of [{}, { trustedPeers: ['127.0.0.0/8'] }]) {
      const program = path.join(__dirname, '../package/serve-once.js')
      const output = execFileSync('unshare', [...later, process.execPath, program, JSON.stringify(options)], { encoding: 'utf8' })
      const { answers } = JSON.parse(output) as Noticed
      t.equal(answers.length, 2)
      for (const answer of answers) {
        t.match(answer, 'trustedPeers' in options ? { address: '127.0.0.1', trust: 'trusted' } : { address: '127.0.0.1', source: 'getpeername' })
      }
    }
  })
})
