import { readFileSync, writeFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import realIp, { type FastifyRealIpOptions, type RealAddress, type ToaFormat } from 'fastify-real-ip'
import { labUnavailable, openLab } from '../lab/lab'
import { balancers, fill, forgeries, through } from '../player/balancers'
import { balancerAddresses, hasIPv6, serverAddresses } from '../player/namespace'
import { openPlayer, type Handshake, type Player } from '../player/player'
import { testInNamespace } from '../player/test-in-namespace'
import {
  eol, fastOpenCookie, fastOpenExperimental, linuxSynOptions, mss, nop, type Option, smc, toa, withLength
} from '../player/tcp-options'

const CLIENT = '203.0.113.7'
const FORGED = '198.51.100.66'
const stamped = toa(254, CLIENT, 51234)
const forged = toa(254, FORGED, 666)
const own = linuxSynOptions(1)
const appendingFormat: ToaFormat[] = [{ kind: 254, length: 8, family: 'IPv4', position: 'last' }]

/** What a source makes of a handshake: the claim, or why there is none. */
interface Row {
  readonly handshake: Handshake
  /** `sources: ['saved-syn']` on the unmodified kernel. */
  readonly syn: string
  /** `sources: ['vtoa']` on the stand-in. */
  readonly vtoa: string
  /** Both, where the last two do not decide it: 'ambiguous'. */
  readonly both?: string
}

const lvs = through(balancers.lvs, stamped)
const synOnly = (...options: Option[]): Handshake => ({ client: options, syn: {}, ack: { options: [] }, data: { options: [] } })
const NONE = 'ESRCH'

const table: Record<string, Row> = {
  'on SYN and ACK': { handshake: lvs, syn: CLIENT, vtoa: CLIENT },
  'on the SYN only': { handshake: synOnly(stamped, ...own), syn: CLIENT, vtoa: NONE },
  'on the ACK only': { handshake: { ...lvs, syn: {} }, syn: 'no-option', vtoa: CLIENT },
  'on both, with different values': {
    handshake: { ...lvs, syn: { options: [forged, ...own] } }, syn: FORGED, vtoa: CLIENT, both: 'ambiguous'
  },
  'data completes the handshake': { handshake: { ...lvs, ack: { skip: true } }, syn: CLIENT, vtoa: CLIENT },
  'no TOA': { handshake: {}, syn: 'no-option', vtoa: NONE },
  'twice the same': { handshake: { ...lvs, syn: { options: [stamped, stamped, mss(1460)] } }, syn: CLIENT, vtoa: CLIENT },
  'twice, with different values': {
    handshake: { ...lvs, syn: { options: [stamped, forged, mss(1460)] } }, syn: 'ambiguous', vtoa: CLIENT, both: 'ambiguous'
  },
  'behind NOPs': { handshake: synOnly(nop, nop, nop, nop, stamped, ...own), syn: 'out-of-place', vtoa: NONE },
  'behind the end of the list': { handshake: synOnly(eol, ...[nop, nop, nop], stamped), syn: 'no-option', vtoa: NONE },
  'not in front': { handshake: synOnly(...own, stamped), syn: 'out-of-place', vtoa: NONE },
  'cut off by the end of the header': { handshake: synOnly(...own, stamped.subarray(0, 4)), syn: 'no-option', vtoa: NONE },
  ...Object.fromEntries([0, 1, 7, 10, 18, 40].map((length) => [`a length of ${length}`, {
    handshake: synOnly(...own, withLength(stamped, length)), syn: 'no-option', vtoa: NONE
  }])),
  'another kind': { handshake: synOnly(toa(200, CLIENT, 1), ...own), syn: 'no-option', vtoa: NONE },
  'two kinds at once': {
    handshake: synOnly(stamped, toa(253, '2001:db8::66', 1)), syn: 'ambiguous', vtoa: NONE, both: 'ambiguous'
  },
  'filled to the last byte': { handshake: synOnly(...fill([stamped, ...own])), syn: 'no-room', vtoa: NONE },
  'as full as an honest stamp can leave it': { handshake: synOnly(...fill([stamped, ...own], 32)), syn: CLIENT, vtoa: NONE },
  'one word fuller': { handshake: synOnly(...fill([stamped, ...own], 36)), syn: 'no-room', vtoa: NONE },
  'payload on the SYN': {
    handshake: { ...lvs, syn: { options: [stamped, ...own], payload: Buffer.from('\r\n') } }, syn: 'syn-payload', vtoa: CLIENT
  },
  "Fast Open's experimental option, as long as TOA": {
    handshake: synOnly(fastOpenExperimental(Buffer.from([1, 2, 3, 4])), ...own), syn: 'no-option', vtoa: NONE
  },
  "Fast Open's request for a cookie": { handshake: synOnly(fastOpenCookie(Buffer.alloc(0)), nop, nop, ...own), syn: 'no-option', vtoa: NONE },
  "SMC's option": { handshake: synOnly(smc, nop, nop, ...own), syn: 'no-option', vtoa: NONE },
  'a retransmitted SYN with another option: the first counts': {
    handshake: { ...lvs, syn: { options: [stamped, ...own], retransmit: { options: [forged, ...own] } } }, syn: CLIENT, vtoa: CLIENT
  }
}

/** What a client's forgery on the SYN comes to behind a balancer that claims the true client. */
const forgeryTable: Record<'lvs' | 'appending', Record<keyof typeof forgeries, string>> = {
  lvs: {
    first: 'ambiguous',
    last: 'ambiguous',
    'first, and no room left': 'no-room',
    'last, and no room left': 'out-of-place',
    'before the end of the list': 'ambiguous'
  },
  appending: {
    first: 'ambiguous',
    last: 'ambiguous',
    'first, and no room left': 'out-of-place',
    'last, and no room left': 'no-room',
    'before the end of the list': 'out-of-place'
  }
}

testInNamespace(__filename, () => {
  async function serve (t: Test, options: FastifyRealIpOptions, host = '::'): Promise<number> {
    const app = Fastify()
    await app.register(realIp, options)
    app.get('/', (request) => request.realAddress)
    t.teardown(() => app.close())
    await app.listen({ port: 0, host: hasIPv6() ? host : '0.0.0.0' })
    return (app.server.address() as AddressInfo).port
  }

  function open (t: Test): Player {
    const player = openPlayer()
    t.teardown(() => player.close())
    return player
  }

  async function ask (player: Player, port: number, handshake: Handshake, family: 'IPv4' | 'IPv6' = 'IPv4', source: string = balancerAddresses[family]): Promise<RealAddress> {
    const connection = await player.connect({ source, destination: serverAddresses[family], port, ...handshake })
    const { body } = await connection.request('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
    connection.destroy()
    return JSON.parse(body)
  }

  /** The claim that was believed; else what was wrong with it, with the transport peer in its place. */
  function outcome (t: Test, answer: RealAddress): string {
    if (answer.source !== 'transport-peer') {
      t.equal(answer.trust, 'trusted')
      return answer.address as string
    }
    t.equal(answer.address, balancerAddresses.IPv4)
    t.match(answer.transportPeer, { address: balancerAddresses.IPv4, port: answer.port })
    return answer.reason === 'no-toa' ? answer.attempts.at(-1)?.reason as string : answer.reason as string
  }

  const list = { trustedPeers: Object.values(balancerAddresses), invalid: 'ignore' } as const
  const fromSyn = { ...list, sources: ['saved-syn'], toa: 'alibaba' } as const

  t.test('TOA on the SYN, on the unmodified kernel', async (t) => {
    const player = open(t)
    for (const host of ['::', '0.0.0.0']) {
      const port = await serve(t, fromSyn, host)
      for (const [name, { handshake, syn }] of Object.entries(table)) {
        t.equal(outcome(t, await ask(player, port, handshake)), syn, `${name}, ${host}`)
      }
    }
  })

  t.test('a forgery on the SYN behind a balancer that stamps it', async (t) => {
    const player = open(t)
    const ports = { lvs: await serve(t, fromSyn), appending: await serve(t, { ...fromSyn, toa: appendingFormat }) }
    for (const balancer of ['lvs', 'appending'] as const) {
      const honest = through(balancers[balancer], stamped)
      t.equal(outcome(t, await ask(player, ports[balancer], honest)), CLIENT, `${balancer}, honest`)
      for (const [place, forge] of Object.entries(forgeries)) {
        const result = outcome(t, await ask(player, ports[balancer], { client: forge(forged, own), ...honest }))
        t.equal(result, forgeryTable[balancer][place as keyof typeof forgeries], `${balancer}, forged ${place}`)
        t.not(result, FORGED)
      }
    }
  })

  t.test('what remains, as docs/trust.md says', async (t) => {
    const player = open(t)
    const port = await serve(t, fromSyn)
    // A balancer that does not stamp the SYN, named as one that does: nothing on the SYN is its own.
    const silent = await ask(player, port, { client: forgeries.first(forged, own), ...through(balancers.dpvs, stamped) })
    t.equal(silent.address, FORGED)
    // Twenty bytes leave no room beside an ordinary SYN's options, so that no room is no sign of a forger.
    if (hasIPv6()) {
      const forged6 = toa(253, '2001:db8::66', 666)
      const handshake = { client: [forged6, ...own], ...through(balancers.lvs, toa(253, '2001:db8::7', 51234)) }
      t.equal((await ask(player, port, handshake, 'IPv6')).address, '2001:db8::66')
      t.equal((await ask(player, port, through(balancers.lvs, toa(253, '2001:db8::7', 51234)), 'IPv6')).address, '2001:db8::7')
    }
  })

  t.test('from a peer that is not in the list', async (t) => {
    const player = open(t)
    const port = await serve(t, fromSyn)
    t.match(await ask(player, port, lvs, 'IPv4', '10.0.0.66'), {
      address: '10.0.0.66', source: 'transport-peer', trust: 'untrusted', reason: 'untrusted-peer', transportPeer: { address: '10.0.0.66' }
    })
  })

  t.test('an invalid claim is reset by default', async (t) => {
    const player = open(t)
    const port = await serve(t, { ...fromSyn, invalid: 'reject' })
    const connection = await player.connect({
      source: balancerAddresses.IPv4, destination: serverAddresses.IPv4, port, client: [stamped, forged, mss(1460)]
    })
    t.equal(await connection.ending(), 'RST')
  })

  t.test('SYN cookies leave no saved SYN, and so no claim', async (t) => {
    const sysctl = '/proc/sys/net/ipv4/tcp_syncookies'
    const before = readFileSync(sysctl, 'utf8')
    writeFileSync(sysctl, '2')
    t.teardown(() => writeFileSync(sysctl, before))
    const answer = await ask(open(t), await serve(t, fromSyn), lvs)
    t.equal(outcome(t, answer), 'no-saved-syn')
  })

  const missing = labUnavailable()
  if (missing !== undefined && process.env.FASTIFY_REAL_IP_LAB !== 'required') {
    t.test('beside the stand-in for vtoa', { skip: missing }, () => {})
    return
  }
  t.test('beside the stand-in for vtoa', async (t) => {
    const lab = await openLab()
    t.teardown(() => lab.close())
    lab.enterServer()
    lab.module.start()
    const player = open(t)
    const vtoa = await serve(t, { ...list, sources: ['vtoa'] })
    const both = await serve(t, { ...list, sources: ['vtoa', 'saved-syn'], toa: 'alibaba' })
    const checked = await serve(t, { ...list, sources: ['vtoa', 'getpeername'], toa: 'alibaba' })
    for (const [name, row] of Object.entries(table)) {
      t.equal(outcome(t, await ask(player, vtoa, row.handshake)), row.vtoa, `vtoa: ${name}`)
      // The module's word counts, and where it has none the SYN's.
      const expected = row.both ?? (row.vtoa === NONE ? row.syn : row.vtoa)
      t.equal(outcome(t, await ask(player, both, row.handshake)), expected, `vtoa and saved-syn: ${name}`)
      const answer = await ask(player, checked, row.handshake)
      const contradicted = row.both === 'ambiguous'
      t.equal(answer.reason, contradicted ? 'ambiguous' : row.vtoa === NONE ? 'no-toa' : undefined, `vtoa, checked by the SYN: ${name}`)
    }
    for (const balancer of ['lvs', 'dpvs', 'appending'] as const) {
      for (const [place, forge] of Object.entries(forgeries)) {
        const answer = await ask(player, vtoa, { client: forge(forged, own), ...through(balancers[balancer], stamped) })
        t.equal(outcome(t, answer), CLIENT, `vtoa behind ${balancer}: forged ${place} on the SYN`)
      }
    }
    // DPVS is known not to stamp the SYN: what is there contradicts nobody.
    const dpvs = await serve(t, { ...list, sources: ['vtoa', 'getpeername'], toa: 'dpvs' })
    const answer = await ask(player, dpvs, { client: forgeries.first(forged, own), ...through(balancers.dpvs, stamped) })
    t.match(answer, { address: CLIENT, source: 'vtoa', trust: 'trusted' })
  })
})
