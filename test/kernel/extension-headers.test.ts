import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import t from 'tap'
import { formatAddress } from '../../lib/address/address'
import { loadLibc, type Libc } from '../../lib/kernel/libc'
import { armListener, SynReader } from '../../lib/kernel/saved-syn'
import { createEndpoint } from '../../lib/kernel/sockaddr'
import { findToa } from '../../lib/sources/toa-option'
import { hasPayload, tcpOptionsEnd } from '../../lib/kernel/tcp-header'
import { fdOf } from '../../lib/node/sockets'
import { balancerAddresses, balancerInterface, hasIPv6, serverAddresses, serverInterface } from '../player/namespace'
import { IPPROTO_DSTOPTS, IPPROTO_HOPOPTS, optionsHeader } from '../player/packet'
import { openPlayer } from '../player/player'
import { testInNamespace } from '../player/test-in-namespace'
import { linuxSynOptions, toa } from '../player/tcp-options'

// A client can put headers between IP and TCP that are longer than both: a saved SYN that is not read whole is none, and
// its sender would be looked for another way.

const formats = [{ kind: 254, length: 8, family: 'IPv4', position: 'first' }] as const

testInNamespace(__filename, () => {
  t.test('saved SYNs with extension headers of any length', { skip: !hasIPv6() && 'no IPv6' }, async (t) => {
    // What a veth pair carries by default is not the longest.
    for (const { name } of [serverInterface, balancerInterface]) execFileSync('ip', ['link', 'set', name, 'mtu', '65535'])
    const libc = loadLibc() as Libc
    const syn = new SynReader(libc)
    const player = openPlayer()
    const server = net.createServer().listen(0, '::')
    t.teardown(() => {
      player.close()
      server.close()
    })
    await once(server, 'listening')
    t.equal(armListener(libc, fdOf(server)), undefined)
    const { port } = server.address() as AddressInfo
    for (const [count, length] of [[0, 0], [1, 8], [1, 64], [1, 256], [3, 256], [5, 256], [10, 256], [255, 256]] as const) {
      const accepting = once(server, 'connection') as Promise<[net.Socket]>
      const extensionHeaders = Array.from({ length: count }, (_, n) => optionsHeader(n === 0 ? IPPROTO_HOPOPTS : IPPROTO_DSTOPTS, length))
      const connection = await player.connect({
        source: balancerAddresses.IPv6,
        destination: serverAddresses.IPv6,
        port,
        client: linuxSynOptions(1),
        syn: { extensionHeaders, options: (own) => [toa(254, '203.0.113.7', 51234), ...own] }
      })
      const [accepted] = await accepting
      const sender = createEndpoint()
      const what = `${count} of ${length} bytes`
      t.ok(syn.read(fdOf(accepted), sender), what)
      t.equal(syn.tcp, 40 + count * length)
      t.equal(syn.length, syn.tcp + 48, what)
      t.same([formatAddress(sender), sender.port], [balancerAddresses.IPv6, connection.sourcePort])
      const claim = createEndpoint()
      const { bytes, tcp } = syn
      t.equal(findToa(bytes, tcp + 20, tcpOptionsEnd(bytes, syn.length, tcp), hasPayload(bytes, tcp), formats, claim), undefined)
      t.same([formatAddress(claim), claim.port], ['203.0.113.7', 51234])
      connection.destroy()
      accepted.destroy()
    }
  })
})
