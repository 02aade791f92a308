import t, { type Test } from 'tap'
import { inLab } from '../lab/in-lab'
import { countDiags, sysctl } from '../lab/trust-lab'
import { testInNamespace } from '../player/test-in-namespace'
import { exchanges } from './exchanges'
import { badHeaders, goodHeaders } from './headers'
import { checkBad, checkGood, serve } from './matrix'
import { type Way, ways as allWays } from './wire'

// SYN cookies, which attackers can force: no SYN is saved, and sock_diag has to be asked who sent the header.

t.setTimeout(300_000)

const thorough = ['http', 'http, an upload', 'h2', 'h2-http1']
const brief = ['http, pipelining', 'ws', 'https', 'h2c']

async function checkAll (t: Test): Promise<void> {
  for (const exchange of exchanges.filter(({ name }) => thorough.includes(name) || brief.includes(name))) {
    await t.test(exchange.name, async (t) => {
      const ways: readonly Way[] = thorough.includes(exchange.name) ? allWays : ['at once', 'split in two']
      const asked = countDiags(t)
      const served = await serve(t, exchange.kind)
      for (const way of ways) {
        await checkGood(t, served, exchange, way)
        await checkBad(t, served, way)
      }
      const connections = (goodHeaders.length + badHeaders.length) * ways.length
      t.match(served.app.realIp.stats(), { connections, rejected: badHeaders.length * ways.length })
      // A SYN that reuses a port in TIME_WAIT gets no cookie, and is saved.
      t.ok(asked() > connections * 0.9, 'the sender of nearly all was looked for')
    })
  }
}

testInNamespace(__filename, () => {
  t.test('SYN cookies', async (t) => {
    sysctl(t, 'tcp_syncookies', 2)
    await checkAll(t)
  })

  // Then it takes a dump of all connections, and each waits for its turn, which takes time.
  inLab('SYN cookies, and a module that rewrites getpeername', async (t, lab) => {
    sysctl(t, 'tcp_syncookies', 2)
    lab.module.start()
    const client = await lab.client({ address: '198.51.100.0', numbered: true })
    for (const [name, way] of [['http', 'split in two'], ['h2', 'at once']] as const) {
      const exchange = exchanges.find((exchange) => exchange.name === name)!
      lab.enterServer()
      const served = await serve(t, exchange.kind)
      client.enter()
      await checkGood(t, served, exchange, way)
      await checkBad(t, served, way)
      t.match(served.app.realIp.stats(), { connections: goodHeaders.length + badHeaders.length })
    }
    lab.enterServer()
  })
})
