import t from 'tap'
import { loadLibc, type Libc } from '../../lib/kernel/libc'
import { exchanges } from './exchanges'
import { badHeaders, goodHeaders } from './headers'
import { checkBad, checkGood, serve } from './matrix'
import { kinds } from '../kinds'
import { ways } from './wire'

// Every header on every kind of server: the address, what the header says, and exactly the client's bytes.

t.setTimeout(600_000)

const onLinux = { skip: process.platform !== 'linux' && 'not Linux' }

for (const exchange of exchanges) {
  t.test(exchange.name, onLinux, async (t) => {
    const served = await serve(t, exchange.kind)
    const libc = loadLibc() as Libc
    for (const way of ways) {
      const drop = t.capture(libc, 'drop', libc.drop)
      await checkGood(t, served, exchange, way)
      // What came before the connection was accepted never reaches the stream of the socket; all else does.
      t.equal(drop().length, way === 'at once' ? goodHeaders.length : 0)
    }
    const { connections, rejected, reason, source } = served.app.realIp.stats()
    const local = goodHeaders.filter((header) => header.source === undefined).length
    t.strictSame([connections, rejected, reason['proxy-local'], source['proxy-protocol'], source['transport-peer']],
      [goodHeaders.length, 0, local, goodHeaders.length - local, local].map((count, i) => i === 1 ? count : count * ways.length))
  })
}

for (const { name } of kinds) {
  t.test(`${name}: bad headers`, onLinux, async (t) => {
    const served = await serve(t, name)
    for (const way of ways) await checkBad(t, served, way)
    t.equal(served.app.realIp.stats().rejected, badHeaders.length * ways.length)
  })
}
