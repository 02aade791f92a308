import { readFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import type { FastifyRealIpOptions } from 'fastify-real-ip'
import { sysctl } from '../lab/trust-lab'
import { kinds } from '../kinds'
import { serverAddresses } from '../player/namespace'
import { testInNamespace } from '../player/test-in-namespace'
import { start } from './start'

// A seccomp filter refuses netlink sockets, and SYN cookies leave no saved SYN: nobody can tell who sent the packets.

const [http] = kinds
const address: string = serverAddresses.IPv4

/** The status of that process, so that nobody is told of a filter that is not there. */
function isFiltered (pid: number): boolean {
  return /^Seccomp:\s+2$/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
}

async function ask (port: number, localAddress = address, host = '127.0.0.1'): Promise<any> {
  // A reset can come before the client has noticed that it is connected.
  const client = await http!.connect(port, { host, localAddress }).catch(() => undefined)
  if (client === undefined) return 'reset'
  client.socket.on('error', () => {})
  try {
    return { ...await client.get('/'), localPort: client.localPort }
  } catch {
    return 'reset'
  } finally {
    await client.close()
  }
}

/** A server under the filter is asked while SYN cookies are in use, and then once more, without them. */
async function askTwice (t: Test, plugin: FastifyRealIpOptions): Promise<[during: any, after: any]> {
  const { port, pid, end } = await start(t, { plugin, refuseNetlink: true })
  t.ok(isFiltered(pid))
  let during: any
  await t.test('with SYN cookies', async (t) => {
    sysctl(t, 'tcp_syncookies', 2)
    during = await ask(port)
    t.same(await ask(port).then(({ trust, reason }) => [trust, reason]), [during.trust, during.reason], 'every time')
  })
  const after = await ask(port)
  t.equal(await end(), 0)
  return [during, after]
}

testInNamespace(__filename, () => {
  const trusted = { address, trust: 'trusted', transportPeer: { address } }
  const trustedPeers = [address]

  t.test('by default nobody is believed', async (t) => {
    const [during, after] = await askTwice(t, { trustedPeers })
    t.match(during, { source: 'none', trust: 'unverified', reason: 'unverified-peer' })
    t.notOk('address' in during)
    t.match(after, { ...trusted, port: after.localPort })
  })

  t.test("with unverified: 'believe' the source is", async (t) => {
    const [during, after] = await askTwice(t, { trustedPeers, unverified: 'believe' })
    t.match(during, { address, port: during.localPort, source: 'getpeername', trust: 'unverified' })
    t.match(after, { ...trusted, port: after.localPort })
  })

  t.test("with unverified: 'reject' the connection is reset", async (t) => {
    const [during, after] = await askTwice(t, { trustedPeers, unverified: 'reject' })
    t.equal(during, 'reset')
    t.match(after, { ...trusted, port: after.localPort })
  })

  t.test('without a policy a loopback address is believed where the server has one too, any other everywhere', async (t) => {
    const own = await start(t, { refuseNetlink: true })
    const other = await start(t, { refuseNetlink: true, host: address })
    for (const { pid } of [own, other]) t.ok(isFiltered(pid))
    const proven = await ask(own.port, '127.0.0.1')
    t.match(proven, { address: '127.0.0.1', port: proven.localPort, source: 'getpeername', trust: 'unchecked' })
    // From loopback to another address of this host: that it is no claim would have to be proven.
    const unproven = await ask(other.port, '127.0.0.1', address)
    t.match(unproven, { source: 'none', trust: 'unchecked', reason: 'implausible' })
    t.notOk('address' in unproven)
    const seen = await ask(own.port)
    t.match(seen, { address, port: seen.localPort, source: 'getpeername' })
  })
})
