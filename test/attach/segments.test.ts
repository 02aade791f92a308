import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type AddressInfo, type Socket } from 'node:net'
import type { Test } from 'tap'
import { sysctl } from '../lab/trust-lab'
import { balancers, through } from '../player/balancers'
import { balancerAddresses, hasIPv6, serverAddresses } from '../player/namespace'
import { openPlayer, type Handshake, type Player } from '../player/player'
import { eol, nop, option, toa, withLength } from '../player/tcp-options'
import { accept, ask1348, inAttachLab } from './attach-lab'

// <net/tcp.h>
const TFO_SERVER_ENABLE = 0x2
const TFO_SERVER_COOKIE_NOT_REQD = 0x200
const TFO_SERVER_WO_SOCKOPT1 = 0x400

const v4 = toa(254, '203.0.113.7', 51234)
const other = toa(254, '198.51.100.1', 1)
const v6 = toa(253, '2001:db8::7', 443)
const mapped = toa(253, '::ffff:203.0.113.7', 51234)
const NONE = 'ESRCH'
const CLIENT = '203.0.113.7 51234'
const ack = (...options: Uint8Array[]): Handshake => ({ ack: { options } })

interface Case {
  readonly handshake: Handshake
  readonly answer: string
  /** Which counter it raises, if not the one that the answer tells. */
  readonly counted?: 'malformed'
}

const cases: Record<string, Case> = {
  'a bare ACK': { handshake: ack(v4), answer: CLIENT },
  'a bare ACK, IPv6 in TOA': { handshake: ack(v6), answer: '2001:db8::7 443' },
  'an IPv4-mapped address in TOA': { handshake: ack(mapped), answer: CLIENT },
  'data that completes the handshake': { handshake: { ack: { skip: true }, data: { options: [v4] } }, answer: CLIENT },
  'an ACK without, data with TOA': { handshake: { ack: { options: [] }, data: { options: [v4] } }, answer: NONE },
  'the SYN only': { handshake: { syn: { options: [v4] }, ack: { options: [] } }, answer: NONE },
  'a SYN that differs': { handshake: { syn: { options: [other] }, ack: { options: [v4] } }, answer: CLIENT },
  'SYN and ACK, as LVS': { handshake: through(balancers.lvs, v4), answer: CLIENT },
  'behind timestamps': { handshake: through(balancers.appending, v4), answer: CLIENT },
  'the first of two': { handshake: ack(v4, other), answer: CLIENT },
  'the first of two families': { handshake: ack(v6, v4), answer: '2001:db8::7 443' },
  'no TOA': { handshake: {}, answer: NONE },
  'no options': { handshake: ack(), answer: NONE },
  'truncated by the end of the header': { handshake: ack(nop, nop, nop, nop, v4.subarray(0, 4)), answer: NONE, counted: 'malformed' },
  'a length of 0': { handshake: ack(withLength(v4, 0)), answer: NONE, counted: 'malformed' },
  'a length of 1': { handshake: ack(withLength(v4, 1)), answer: NONE, counted: 'malformed' },
  'a wrong length': { handshake: ack(option(254, v4.subarray(2, 7)), nop), answer: NONE, counted: 'malformed' },
  'one of a wrong length, then a right one': { handshake: ack(option(254, v4.subarray(2, 7)), nop, v4), answer: CLIENT },
  'behind a malformed option': { handshake: ack(Uint8Array.of(30, 0), nop, nop, v4), answer: NONE, counted: 'malformed' },
  'NOPs in front': { handshake: ack(...Array<Uint8Array>(32).fill(nop), v4), answer: CLIENT },
  'behind the end of the list': { handshake: ack(eol, eol, eol, eol, v4), answer: NONE },
  'the kind alone as the last byte': { handshake: ack(nop, nop, nop, Uint8Array.of(254)), answer: NONE, counted: 'malformed' },
  'a port that is a magic number of Fast Open': { handshake: ack(toa(254, '203.0.113.7', 0xf989)), answer: '203.0.113.7 63881' }
}

inAttachLab(__filename, {
  async 'segments' (t, lab) {
    for (const family of hasIPv6() ? ['IPv4', 'IPv6'] as const : ['IPv4'] as const) {
      lab.attach({ trustedPeers: [balancerAddresses[family]] })
      for (const host of family === 'IPv4' ? [serverAddresses.IPv4, '::'] : ['::']) {
        const { connect } = await serve(t, host, family)
        for (const [name, { handshake, answer, counted }] of Object.entries(cases)) {
          const before = lab.attachment()?.counters
          t.equal(await connect(handshake), answer, `${name}, ${family} at ${host}`)
          const after = lab.attachment()?.counters
          const raised = Object.entries(after ?? {}).filter(([name, count]) => count !== before?.[name as 'none'])
          t.same(raised.map(([name]) => name), [counted ?? (answer === NONE ? 'none' : 'claims')], `${name}: what is counted`)
        }
      }
    }
  },

  async 'a stranger is not believed' (t, lab) {
    lab.attach({ trustedPeers: ['10.0.0.0/30', 'fd00::2'] })
    for (const family of hasIPv6() ? ['IPv4', 'IPv6'] as const : ['IPv4'] as const) {
      const { connect } = await serve(t, '::', family)
      t.equal(await connect(ack(v4)), CLIENT)
      t.equal(await connect(ack(v4), family === 'IPv4' ? '10.0.0.4' : 'fd00::3'), NONE)
    }
    t.match(lab.attachment()?.counters, hasIPv6() ? { claims: 2, strangers: 2 } : { claims: 1, strangers: 1 })
  },

  async 'families of the list do not mix' (t, lab) {
    const { connect } = await serve(t, '::', 'IPv4')
    const lists: Array<[list: string[], answer: string]> = [
      [['::/0'], NONE], [['0.0.0.0/0'], CLIENT], [['::ffff:10.0.0.0/120'], CLIENT], [['10.0.0.2/32', '10.0.0.0/8'], CLIENT],
      [['10.0.0.3'], NONE], [['128.0.0.0/1', '0.0.0.0/1'], CLIENT], [['uniquelocal'], CLIENT], [['loopback'], NONE], [[], NONE]
    ]
    for (const [list, answer] of lists) {
      lab.attach({ trustedPeers: list })
      t.equal(await connect(ack(v4)), answer, `[${list.join()}]`)
    }
    if (!hasIPv6()) return
    const { connect: connectV6 } = await serve(t, '::', 'IPv6')
    for (const [list, answer] of [[['0.0.0.0/0'], NONE], [['::/0'], CLIENT], [['fd00::/127'], NONE], [['fd00::2/127'], CLIENT]] as const) {
      lab.attach({ trustedPeers: list })
      t.equal(await connectV6(ack(v4)), answer, `IPv6, [${list.join()}]`)
    }
  },

  async 'other formats' (t, lab) {
    const { connect } = await serve(t, serverAddresses.IPv4, 'IPv4')
    const client = Uint8Array.of(200, 34, 203, 0, 113, 7)
    lab.attach({
      formats: [
        { kind: 200, length: 8, family: 'IPv4' }, { kind: 254, length: 20, family: 'IPv6' }, { kind: 252, length: 20, family: 'IPv4' },
        { kind: 249, length: 40, family: 'IPv6' }, { kind: 28, length: 8, family: 'IPv4' }, { kind: 2, length: 8, family: 'IPv4' },
        { kind: 253, length: 20, family: 'IPv6' }, { kind: 253, length: 8, family: 'IPv4' }
      ]
    })
    const formats: Array<[segment: Uint8Array, answer: string]> = [
      [toa(200, '203.0.113.7', 51234), CLIENT],
      [toa(254, '2001:db8::9', 9), '2001:db8::9 9'],
      [option(252, client, Buffer.alloc(12)), CLIENT],
      [option(249, Uint8Array.of(1, 187), v6.subarray(4), Buffer.alloc(20)), '2001:db8::7 443'],
      [option(28, client), CLIENT],
      [toa(253, '203.0.113.7', 51234), CLIENT],
      [v6, '2001:db8::7 443'],
      [v4, NONE]
    ]
    for (const [segment, answer] of formats) t.equal(await connect(ack(segment)), answer, `${segment[0]}/${segment[1]}`)
  },

  async 'SYN cookies' (t, lab) {
    sysctl(t, 'tcp_syncookies', '2')
    const before = syncookiesReceived()
    lab.attach({ trustedPeers: ['10.0.0.2'] })
    const { connect } = await serve(t, serverAddresses.IPv4, 'IPv4')
    t.equal(await connect(ack(v4)), CLIENT)
    t.equal(await connect(ack()), NONE)
    t.equal(await connect(ack(v4), '10.0.0.3'), NONE)
    t.ok(syncookiesReceived() >= before + 3)
  },

  async 'a SYN that establishes a connection by Fast Open is not believed' (t, lab) {
    sysctl(t, 'tcp_fastopen', String(TFO_SERVER_ENABLE | TFO_SERVER_COOKIE_NOT_REQD | TFO_SERVER_WO_SOCKOPT1))
    lab.attach({ trustedPeers: ['10.0.0.2'] })
    const { player, server, port } = await serve(t, serverAddresses.IPv4, 'IPv4')
    const accepted = accept(t, server)
    player.syn({
      source: balancerAddresses.IPv4, destination: serverAddresses.IPv4, port, client: [v4], syn: { payload: Buffer.from('early') }
    })
    const socket = await accepted
    const [early] = await once(socket, 'data') as [Buffer]
    t.equal(String(early), 'early')
    t.equal(ask1348(socket), NONE)
    t.match(lab.attachment()?.counters, { claims: 0, none: 1 })
  }
}, { network: true })

async function serve (t: Test, host: string, family: 'IPv4' | 'IPv6') {
  const server = createServer((socket) => { socket.on('error', () => {}) }).listen(0, host)
  await once(server, 'listening')
  const player: Player = openPlayer()
  t.teardown(async () => {
    player.close()
    server.close()
    await once(server, 'close')
  })
  const { port } = server.address() as AddressInfo
  const sockets: Socket[] = []
  t.teardown(() => { for (const socket of sockets) socket.destroy() })
  return {
    server,
    player,
    port,
    /** What 1348 says of a connection with this handshake. */
    async connect (handshake: Handshake, source: string = balancerAddresses[family]): Promise<string> {
      const accepted = accept(t, server)
      const connection = await player.connect({ source, destination: serverAddresses[family], port, ...handshake })
      if (handshake.ack?.skip === true || handshake.data !== undefined) connection.write('data')
      const socket = await accepted
      sockets.push(socket)
      const answer = ask1348(socket)
      connection.destroy()
      return answer
    }
  }
}

/** How many ACKs of this namespace brought a valid cookie. */
function syncookiesReceived (): number {
  const [names = [], values = []] = readFileSync('/proc/net/netstat', 'utf8').split('\n').map((line) => line.split(' '))
  return Number(values[names.indexOf('SyncookiesRecv')])
}
