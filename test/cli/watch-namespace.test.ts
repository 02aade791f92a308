import { readFileSync, writeFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import { balancers, forgeries, through } from '../player/balancers'
import { balancerAddresses, hasIPv6, serverAddresses } from '../player/namespace'
import { openPlayer, type Handshake, type Player } from '../player/player'
import { testInNamespace } from '../player/test-in-namespace'
import { linuxSynOptions, toa } from '../player/tcp-options'
import { startWatch, type Watch } from './cli'

const claim = { address: '203.0.113.7', port: 51234 }
const stamped = toa(254, claim.address, claim.port)
const forged = toa(254, '198.51.100.66', 666)
const balancer = balancerAddresses.IPv4
const isToa = ({ name }: { name: string }) => name === 'toa'

testInNamespace(__filename, () => {
  function play (t: Test): Player {
    const player = openPlayer()
    t.teardown(() => player.close())
    return player
  }

  async function visit (player: Player, { port }: Watch, handshake: Handshake, family: 'IPv4' | 'IPv6' = 'IPv4', source: string = balancerAddresses[family]): Promise<number> {
    const connection = await player.connect({ source, destination: serverAddresses[family], port, ...handshake })
    return connection.sourcePort
  }

  t.test('a balancer that stamps the SYN', async (t) => {
    const player = play(t)
    const watch = await startWatch(t)
    const port = await visit(player, watch, through(balancers.lvs, stamped))
    const seen = await watch.seen()
    t.match(seen, {
      transportPeer: { address: balancer, port, by: 'saved-syn' },
      decision: { address: balancer, source: 'getpeername', trust: 'unchecked' }
    })
    t.match(seen.syn?.options[0], { kind: 254, length: 8, name: 'toa', ...claim, format: '254/8/IPv4/first' })
    t.match(seen.ack?.[0], { kind: 254, ...claim })
    const advice = /--trusted-peers (\S+) --toa (\S+)$/.exec(seen.notes.at(-1) as string)
    t.same(advice?.slice(1), [balancer, '254/8/IPv4/first'])

    const advised = await startWatch(t, ['--json', '--trusted-peers', advice?.[1] as string, '--toa', advice?.[2] as string])
    await visit(player, advised, through(balancers.lvs, stamped))
    const believed = await advised.seen()
    t.match(believed.decision, { ...claim, source: 'saved-syn', trust: 'trusted', reset: false })
    t.same(believed.sources.at(-1), { source: 'saved-syn', ...claim })
    t.same(believed.notes, [])

    await visit(player, advised, { ...through(balancers.lvs, stamped), client: forgeries.last(forged, linuxSynOptions(1)) })
    const ambiguous = await advised.seen()
    t.match(ambiguous.decision, { address: balancer, reason: 'ambiguous', reset: true })
    t.match(ambiguous.syn?.options.filter(isToa), [claim, { address: '198.51.100.66' }])

    await visit(player, advised, through(balancers.lvs, stamped), 'IPv4', '10.0.0.66')
    t.match((await advised.seen()).decision, { address: '10.0.0.66', trust: 'untrusted', reason: 'untrusted-peer' })
  })

  t.test('a balancer that stamps the ACK alone: seen with a packet socket', async (t) => {
    const player = play(t)
    const watch = await startWatch(t)
    await visit(player, watch, through(balancers.dpvs, stamped))
    const seen = await watch.seen()
    t.same(seen.syn?.options.filter(isToa), [])
    t.match(seen.ack?.filter(isToa), [claim])
    t.match(seen.notes, [/^Only the ACK carries TOA, not the SYN: to read it, load a kernel module/])

    await visit(player, watch, { ...through(balancers.dpvs, stamped), client: forgeries.first(forged, linuxSynOptions(1)) })
    t.match((await watch.seen()).notes, [/^The SYN and the ACK carry different TOAs/], 'and no advice to read what a client forged')

    const named = await startWatch(t, ['--json', '--trusted-peers', balancer, '--toa', 'dpvs'])
    t.match(named.notes[0], /not saved-syn \(since 1.9.6 DPVS writes no TOA on the SYN/)
    await visit(player, named, { ...through(balancers.dpvs, stamped), client: forgeries.first(forged, linuxSynOptions(1)) })
    const untouched = await named.seen()
    t.match(untouched.decision, { address: balancer, source: 'transport-peer', reason: 'no-toa' })
    t.match(untouched.sources.at(-1), { source: 'saved-syn', reason: 'not-asked' })
  })

  t.test('IPv6', { skip: !hasIPv6() && 'this kernel has no IPv6' }, async (t) => {
    const player = play(t)
    const watch = await startWatch(t, ['--json', '--trusted-peers', 'fd00::2', '--toa', 'alibaba'])
    const port = await visit(player, watch, through(balancers.lvs, toa(253, '2001:db8::7', 443)), 'IPv6')
    t.match(await watch.seen(), {
      transportPeer: { address: 'fd00::2', port },
      syn: { options: [{ kind: 253, length: 20, address: '2001:db8::7', port: 443, format: '253/20/IPv6/first' }] },
      ack: [{ kind: 253, address: '2001:db8::7' }],
      decision: { address: '2001:db8::7', port: 443, family: 'IPv6', source: 'saved-syn', trust: 'trusted' }
    })
  })

  t.test('data on the SYN', async (t) => {
    const watch = await startWatch(t, ['--json', '--trusted-peers', balancer, '--toa', 'alibaba'])
    await visit(play(t), watch, { syn: { options: [stamped, ...linuxSynOptions(1)], payload: Buffer.from('GET') } })
    const seen = await watch.seen()
    t.equal(seen.syn?.payload, true)
    t.match(seen.sources.at(-1), { source: 'saved-syn', reason: 'syn-payload' })
  })

  t.test('SYN cookies: the SYN is not kept, and sock_diag tells who sent it', async (t) => {
    const sysctl = '/proc/sys/net/ipv4/tcp_syncookies'
    const before = readFileSync(sysctl, 'utf8')
    writeFileSync(sysctl, '2')
    t.teardown(() => writeFileSync(sysctl, before))
    const player = play(t)
    const watch = await startWatch(t)
    const port = await visit(player, watch, through(balancers.lvs, stamped))
    const seen = await watch.seen()
    t.match(seen, { transportPeer: { address: balancer, port, by: 'sock_diag' }, syn: null })
    t.match(seen.ack?.[0], claim)
    t.match(seen.notes, [/^The kernel did not save the SYN/, /^Only the ACK carries TOA, not the SYN/])
  })
})
