import { isIPv6 } from 'node:net'
import type { FastifyInstance } from 'fastify'
import type { Test } from 'tap'
import realIp, { type FastifyRealIpOptions, type RealAddress, type TransportPeer, type TrustedPeers } from 'fastify-real-ip'
import { kinds, listen } from '../kinds'
import { balancerAddresses, hasIPv6 } from '../player/namespace'
import type { Player } from '../player/player'
import { testInNamespace } from '../player/test-in-namespace'
import { inLab } from './in-lab'
import { open, refuseDiag, sysctl } from './trust-lab'
import { type Protocol, visit, type Visitor } from './trust-visit'

// The decision table: whose address is the answer, its trust, its reason; or a reset. P is the transport peer. The
// settings are those that differ from the defaults. In parentheses the source, where it is not the ordinary one. Where
// there is a * a walk through a forwarding header may start.
const table = `
trustedPeers, peer | settings                              | absent                                       | plausible                             | implausible                     | ambiguous

unset              |                                       | P, unchecked (getpeername)                   | claim, unchecked                      | P, unchecked, implausible       |
unset, P unknown   |                                       | P, unchecked (getpeername)                   | claim, unchecked                      | none, unchecked, implausible    |

any                |                                       | P, trusted, no-toa *                         | claim, trusted *                      | reset                           |
any                | invalid: ignore                       | P, trusted, no-toa *                         | claim, trusted *                      | P, trusted, implausible         |
any                | missing: reject, untrusted: reject    | P, trusted, no-toa *                         | claim, trusted *                      | reset                           |
any, P unknown     |                                       | P, trusted * (getpeername)                   | claim, trusted *                      | reset                           |
any, P unknown     | invalid: ignore, unverified: reject   | P, trusted * (getpeername)                   | claim, trusted *                      | none, trusted, implausible      |

list, P in it      |                                       | P, trusted, no-toa                           | claim, trusted *                      | reset                           | reset
list, P in it      | missing: reject                       | reset                                        | claim, trusted *                      | reset                           | reset
list, P in it      | invalid: ignore                       | P, trusted, no-toa                           | claim, trusted *                      | P, trusted, implausible         | P, trusted, ambiguous
list, P in it      | untrusted: reject, unverified: reject | P, trusted, no-toa                           | claim, trusted *                      | reset                           | reset

list, P not in it  |                                       | P, untrusted *                               | P, untrusted, untrusted-peer *        | P, untrusted, untrusted-peer *  | P, untrusted, untrusted-peer *
list, P not in it  | untrusted: reject                     | P, untrusted *                               | reset                                 | reset                           | reset
list, P not in it  | missing: reject, unverified: reject   | P, untrusted *                               | P, untrusted, untrusted-peer *        | P, untrusted, untrusted-peer *  | P, untrusted, untrusted-peer *

list, P unknown    |                                       | none, unverified, unverified-peer            | none, unverified, unverified-peer     | none, unverified, implausible   |
list, P unknown    | unverified: reject                    | reset                                        | reset                                 | reset                           |
list, P unknown    | unverified: believe                   | P, unverified, unverified-peer (getpeername) | claim, unverified, unverified-peer    | none, unverified, implausible   |
list, P unknown    | missing: reject, untrusted: reject    | none, unverified, unverified-peer            | none, unverified, unverified-peer     | none, unverified, implausible   |
`

const columns = ['absent', 'plausible', 'implausible', 'ambiguous'] as const
type Column = typeof columns[number]

interface Row {
  readonly trustedPeers: 'unset' | 'any' | 'list'
  readonly peer: 'in it' | 'not in it' | 'unknown' | 'known'
  readonly settings: FastifyRealIpOptions
  readonly cells: ReadonlyArray<readonly [Column, string]>
  readonly text: string
}

const rows: Row[] = table.trim().split('\n').slice(1).filter((line) => line !== '').map((line) => {
  const [name = '', settings = '', ...cells] = line.split('|').map((part) => part.trim())
  const [trustedPeers, peer = 'known'] = name.split(', P ').flatMap((part) => part.split(', '))
  return {
    trustedPeers: trustedPeers as Row['trustedPeers'],
    peer: peer as Row['peer'],
    settings: Object.fromEntries(settings.split(', ').filter((pair) => pair !== '').map((pair) => pair.split(': '))),
    cells: columns.map((column, i) => [column, cells[i] ?? ''] as const).filter(([, cell]) => cell !== ''),
    text: `${name} ${settings}`.trim()
  }
})

const listed: ReadonlyArray<string> = Object.values(balancerAddresses)
const strangers = { IPv4: '198.51.100.66', IPv6: '2001:db8:66::66' } as const
const claims = {
  IPv4: { address: '203.0.113.7', port: 51234 },
  IPv6: { address: '2001:db8::7', port: 51234 }
} as const
const others = {
  IPv4: { address: '203.0.113.8', port: 51235 },
  IPv6: { address: '2001:db8::8', port: 51235 }
} as const
const forwardedFor = '192.0.2.99'
const impossible = {
  IPv4: { address: '0.0.0.0', port: 80 },
  IPv6: { address: 'ff02::1', port: 80 }
} as const

type Family = 'IPv4' | 'IPv6'
const protocols: Protocol[] = ['http', 'https', 'h2']
const kindOf = (protocol: Protocol) => kinds.find(({ name }) => name === protocol)!

interface Served {
  readonly app: FastifyInstance
  readonly port: number
  /** How many requests, handshakes and parser errors the server has seen. */
  seen (): number
}

async function serve (t: Test, protocol: Protocol, options: FastifyRealIpOptions): Promise<Served> {
  const app = kindOf(protocol).create({ forceCloseConnections: true })
  let seen = 0
  for (const event of ['request', 'stream', 'secureConnection', 'clientError', 'tlsClientError']) {
    // TLS has an error of its own where nothing has come: the connection's end.
    app.server.on(event, (subject) => { if (subject?.code !== 'ECONNRESET') seen++ })
  }
  await app.register(realIp, options)
  app.get('/', (request) => ({ ...request.realAddress, same: request.realIp === request.realAddress.address }))
  // As the oracle reads it.
  app.get('/claim', ({ realAddress: { address, port, source } }) => ({ realIp: address, port, source }))
  t.teardown(() => app.close())
  return { app, port: await listen(app, { host: hasIPv6() ? '::' : '0.0.0.0' }), seen: () => seen }
}

/** What a cell of the table means for one connection. */
function expected (cell: string, peer: string, visitor: Visitor, claim: { address: string, port: number }, row: Row): object | string {
  if (cell === 'reset') return 'reset'
  const [, what = '', source] = /^([^(*]*?)(?: \*)?(?: \((.*)\))?$/.exec(cell) ?? []
  const [whose, trust, reason] = what.split(', ')
  const P = { address: peer, port: visitor.sourcePort }
  // Without a list nobody asks who sent the packets, but where the claim cannot be.
  const known = row.peer !== 'unknown' && (row.trustedPeers !== 'unset' || source === undefined)
  const answers = {
    P: { ...P, source: source ?? 'transport-peer', transportPeer: known ? P : undefined },
    claim: { ...claim, source: 'vtoa', transportPeer: row.peer !== 'unknown' && row.trustedPeers !== 'unset' ? P : undefined },
    none: { address: undefined, port: undefined, source: 'none', transportPeer: undefined }
  }
  return { ...answers[whose as 'P'], trust, reason, same: true }
}

const picked = (answer: RealAddress & { same?: boolean } | string) => {
  if (typeof answer === 'string') return answer
  const { address, port, source, trust, reason, transportPeer, same } = answer
  return { address, port, source, trust, reason, transportPeer, same }
}

interface How {
  /** Whether it takes sock_diag to find P. */
  readonly viaDiag?: boolean
  readonly list?: TrustedPeers
}

testInNamespace(__filename, () => {
  const families: Family[] = hasIPv6() ? ['IPv4', 'IPv6'] : ['IPv4']

  async function checkCell (t: Test, player: Player, row: Row, [column, cell]: Row['cells'][number], protocol: Protocol, { viaDiag = false, list = listed }: How): Promise<void> {
    const { trustedPeers, peer, settings, text } = row
    const { app, port, seen } = await serve(t, protocol, {
      ...(trustedPeers !== 'unset' && { trustedPeers: trustedPeers === 'any' ? 'any' : list }),
      ...(trustedPeers !== 'unset' && { forwarded: { trust: [] } }),
      ...(column === 'ambiguous' && { toa: 'alibaba' }),
      ...settings
    })
    for (const family of families) {
      const source = (peer === 'not in it' ? strangers : balancerAddresses)[family]
      const claim = column === 'absent' ? undefined : (column === 'implausible' ? impossible : claims)[family]
      const claimOnSyn = column === 'ambiguous' ? others[family] : undefined
      const visitor = await visit(player, { protocol, port, source, claim, claimOnSyn })
      const answer = await visitor.get()
      const what = `${text}, ${column}, ${protocol}, ${family}${viaDiag ? ', by sock_diag' : ''}`
      t.same(picked(answer), expected(cell, source, visitor, claim ?? claims[family], row), what)
      if (cell === 'reset' && !viaDiag) {
        t.equal(visitor.received(), 0, `${what}: no byte from the server`)
        t.equal(seen(), 0, `${what}: nothing is parsed`)
      }
      if (answer !== 'reset') {
        const { same, ...base } = answer
        if (trustedPeers !== 'unset') app.realIp.setForwardedTrust(['0.0.0.0/0', '::/0'])
        const forwarded = await visitor.get('/', { 'x-forwarded-for': forwardedFor })
        if (cell.includes('*')) t.match(forwarded, { address: forwardedFor, source: 'forwarded', trust: 'trusted', via: base }, `${what}: a header counts`)
        else t.same(forwarded, answer, `${what}: no header counts`)
      }
      visitor.close()
      if (trustedPeers !== 'unset') app.realIp.setForwardedTrust([])
    }
    await app.close()
  }

  async function checkRows (t: Test, which: (row: Row) => boolean, protocol: Protocol, how: How = {}): Promise<void> {
    const player = open(t)
    await Promise.all(rows.filter(which).flatMap((row) => row.cells
      // It takes the SYN to contradict the ACK; and 'toa' takes a list.
      .filter(([column]) => column !== 'ambiguous' || (how.viaDiag !== true && how.list === undefined))
      .map((cell) => checkCell(t, player, row, cell, protocol, how))))
  }

  inLab('every cell of the table', async (t, lab) => {
    lab.module.start()
    const isKnown = ({ peer }: Row) => peer !== 'unknown'
    const isUnknown = ({ peer }: Row) => peer === 'unknown'
    for (const protocol of protocols) {
      await t.test(`${protocol}: P from the saved SYN`, async (t) => {
        await checkRows(t, isKnown, protocol)
      })
      await t.test(`${protocol}: P from sock_diag, for SYN cookies leave no saved SYN`, async (t) => {
        sysctl(t, 'tcp_syncookies', 2)
        await checkRows(t, isKnown, protocol, { viaDiag: true })
      })
      await t.test(`${protocol}: P unknown, for sock_diag is refused too`, async (t) => {
        sysctl(t, 'tcp_syncookies', 2)
        refuseDiag(t)
        await checkRows(t, isUnknown, protocol)
      })
    }
    await t.test('a predicate in the place of the list', async (t) => {
      const list = ({ address }: TransportPeer) => listed.includes(address)
      await checkRows(t, isKnown, 'http', { list })
      sysctl(t, 'tcp_syncookies', 2)
      refuseDiag(t)
      await checkRows(t, isUnknown, 'http', { list })
    })
  })

  inLab('what a client can have, and what it cannot', async (t, lab) => {
    lab.module.start()
    const client = await lab.client()
    const port = (await serve(t, 'http', { trustedPeers: [...listed, 'loopback'], invalid: 'ignore' })).port
    const player = open(t)

    async function ask (address: string, claimed: { address: string, port: number }, sourcePort?: number): Promise<RealAddress> {
      const source = balancerAddresses[isIPv6(address) ? 'IPv6' : 'IPv4']
      const visitor = await visit(player, { protocol: 'http', port, source, claim: claimed, ...(sourcePort && { sourcePort }) })
      const answer = await visitor.get()
      visitor.close()
      return answer
    }

    const impossible = [
      '0.0.0.0', '0.255.255.255', '127.0.0.0', '127.0.0.1', '127.255.255.255', '224.0.0.0', '224.0.0.1', '239.255.255.255',
      '255.255.255.255', ...(hasIPv6()
        ? ['::', '::1', '::2', '::7f00:1', '::ffff:ffff', 'ff00::', 'ff02::1', 'ffff::', '::ffff:0.0.0.0', '::ffff:127.0.0.1', '::ffff:224.0.0.1']
        : [])
    ]
    for (const address of impossible) {
      t.match(await ask(address, { address, port: 80 }), {
        address: balancerAddresses[isIPv6(address) ? 'IPv6' : 'IPv4'], source: 'transport-peer', trust: 'trusted', reason: 'implausible'
      }, address)
    }

    const possible = [
      '1.0.0.0', '10.0.0.1', '100.64.0.1', '126.255.255.255', '128.0.0.0', '169.254.0.1', '172.16.0.1', '192.168.0.1',
      '223.255.255.255', '240.0.0.0', '255.255.255.254', ...(hasIPv6()
        ? ['::1:0:0', '1::', '2001:db8::1', 'fc00::1', 'fe80::1', 'feff:ffff::', '::ffff:192.0.2.1']
        : [])
    ]
    for (const address of possible) {
      t.match(await ask(address, { address, port: 80 }), {
        address: address.replace('::ffff:', ''), port: 80, source: 'vtoa', trust: 'trusted', reason: undefined
      }, address)
    }

    const { address } = claims.IPv4
    const portless = await ask(address, { address, port: 0 })
    t.match(portless, { address, source: 'vtoa', trust: 'trusted' }, 'port 0: the address stands')
    t.equal(portless.port, undefined)

    const itself = { address: balancerAddresses.IPv4 as string, port: 50_001 }
    t.match(await ask(itself.address, itself, 50_001), { ...itself, reason: 'no-toa', source: 'transport-peer' }, 'P itself is no claim')
    t.match(await ask(itself.address, { ...itself, port: 50_003 }, 50_002), { ...itself, port: 50_003, source: 'vtoa', reason: undefined },
      'P with another port is one')

    // From loopback, where P is loopback itself.
    for (const host of hasIPv6() ? ['127.0.0.1', '::1'] : ['127.0.0.1']) {
      client.set({ address: host === '::1' ? '::1' : '127.1.2.3', port: 4321 })
      const oracle = client.oracle()
      const { right, samples } = await oracle.run({ host, port, path: '/claim', source: 'vtoa' })
      t.same([right, samples], [1, []], `a loopback claim from ${host}`)
      await oracle.close()
    }
  })
})
