import { once } from 'node:events'
import type { Socket } from 'node:net'
import t from 'tap'
import { encodeProxyHeader, type FastifyRealIpOptions } from 'fastify-real-ip'
import { inLab } from '../lab/in-lab'
import { holdDumps, refuseDiag, sysctl } from '../lab/trust-lab'
import { testInNamespace } from '../player/test-in-namespace'
import { askHttp } from './ask'
import { firstBytes } from './exchanges'
import { connectFrom, countLooks, PEER, serve } from './matrix'
import { sendAndWait } from './wire'

// Senders that cannot be known, or only later; and kernel sources for those who send no header.

t.setTimeout(120_000)

const client = { address: '203.0.113.7', port: 51234 }
const header = encodeProxyHeader({ source: client, destination: { address: '198.51.100.1', port: 443 } })

testInNamespace(__filename, () => {
  t.test("a sender that cannot be known: 'unverified' decides, and nothing is read", async (t) => {
    sysctl(t, 'tcp_syncookies', 2)
    refuseDiag(t)
    const looks = countLooks(t)
    const ignored = await serve(t, 'http')
    t.equal(await askHttp(connectFrom(ignored, PEER), { header }), 400)
    t.match(await askHttp(connectFrom(ignored, PEER)), { address: undefined, source: 'none', trust: 'unverified', reason: 'unverified-peer', proxyProtocol: undefined })
    const rejected = await serve(t, 'https', { options: { unverified: 'reject' } })
    t.match(await sendAndWait(connectFrom(rejected, PEER), 'later', header, firstBytes('https')), { received: '', code: 'ECONNRESET' })
    t.same(rejected.events, [])
    t.match(rejected.app.realIp.stats(), { connections: 1, rejected: 1, reason: { 'unverified-peer': 1 } })
    t.equal(looks(), 0)
    // Whoever reaches the port is believed, known or not.
    const any = await serve(t, 'http', { options: { trustedPeers: 'any' } })
    t.match(await askHttp(connectFrom(any, PEER), { header }), { ...client, trust: 'trusted', source: 'proxy-protocol' })
    // But a list of those who send headers takes knowing them.
    const some = await serve(t, 'http', { options: { trustedPeers: 'any', proxyProtocol: { from: [PEER] } } })
    t.equal(await askHttp(connectFrom(some, PEER), { header }), 400)
  })

  inLab('kernel sources for trusted peers that send no header', async (t, lab) => {
    lab.module.start()
    const stamping = await lab.client({ address: '198.51.100.0', numbered: true })
    const options: FastifyRealIpOptions = {
      sources: ['proxy-protocol', 'vtoa', 'getpeername'], trustedPeers: ['127.0.0.8', PEER], proxyProtocol: { from: [PEER] }
    }
    lab.enterServer()
    const served = await serve(t, 'http', { options })
    stamping.enter()
    t.match(await askHttp(connectFrom(served, PEER), { header }), { ...client, source: 'proxy-protocol', transportPeer: { address: PEER }, attempts: [] })
    t.match(await askHttp(connectFrom(served, '127.0.0.8')), { address: /^198\.0\.0\./, source: 'vtoa', trust: 'trusted', transportPeer: { address: '127.0.0.8' }, proxyProtocol: undefined })
    t.match(await askHttp(connectFrom(served, '127.0.0.66')), { address: '127.0.0.66', trust: 'untrusted', reason: 'untrusted-peer' })
    t.equal(await askHttp(connectFrom(served, PEER)), 'reset', 'TOA is no header')
    lab.enterServer()
    const { source, reason } = served.app.realIp.stats()
    t.strictSame([source['proxy-protocol'], source.vtoa, source['transport-peer'], reason['proxy-missing']], [1, 1, 1, 1])
  })

  inLab('a list that is swapped while the sender is looked for', async (t, lab) => {
    sysctl(t, 'tcp_syncookies', 2)
    lab.module.start()
    const stamping = await lab.client({ address: '198.51.100.0', numbered: true })
    for (const [before, after, expected] of [[[], [PEER], client], [[PEER], [], 400]] as const) {
      lab.enterServer()
      const served = await serve(t, 'http', { options: { trustedPeers: before } })
      stamping.enter()
      const later = holdDumps(t)
      // The first has its dump at once.
      const first = await askHttp(connectFrom(served, PEER), { header })
      t.match(first, before.length === 0 ? 400 : client)
      const socket: Socket = connectFrom(served, PEER)()
      const answer = askHttp(() => socket, { header })
      await once(socket, 'connect')
      t.equal(served.app.realIp.stats().connections, 1, 'it is held')
      served.app.realIp.setTrustedPeers(after)
      later.release()

      const another = await askHttp(connectFrom(served, PEER), { header })
      t.match(another, expected)
      t.match(await answer, expected)
    }
    lab.enterServer()
  })
})
