import t from 'tap'
import { createEndpoint, type Endpoint } from '../../lib/kernel/sockaddr'
import { Checked } from '../../lib/trust/checked'
import { Fallback } from '../../lib/trust/claim'
import { Suspicions } from '../../lib/trust/suspicions'
import type { ClaimColumn } from '../../lib/trust/table'
import type { Warnings } from '../../lib/warnings'

const peer: Endpoint = { ...createEndpoint(), w3: 0x0a000002, port: 80 }
const loopback: Endpoint = { ...peer, w3: 0x7f000002 }
const MANY = 100

function create (isProxy: (peer: Endpoint) => boolean = () => false) {
  const given: string[] = []
  const warnings = { warn (name: string) { given.push(name) } } as unknown as Warnings
  const suspicions = new Suspicions(warnings, false, isProxy)
  const checked = (column: ClaimColumn, peer?: Endpoint) => new Checked(new Fallback(undefined, undefined, 'no-fd'), peer, { column })
  const rule = (times: number, column: ClaimColumn, trust: string, reason?: string, of = peer) => {
    for (let i = 0; i < times; i++) suspicions.ruled(checked(column, of), trust, reason)
  }
  return { given, suspicions, rule, checked }
}

t.test('many trusted connections without a claim, once', async (t) => {
  const { given, rule } = create()
  rule(MANY - 1, 'absent', 'trusted', 'no-toa')
  t.same(given, [])
  rule(1, 'absent', 'trusted', 'no-toa')
  t.same(given, ['NO_TOA'])
  rule(2 * MANY, 'absent', 'trusted', 'no-toa')
  t.same(given, ['NO_TOA'])
})

t.test('others do not count', async (t) => {
  const { given, rule } = create()
  rule(MANY - 1, 'absent', 'trusted', 'no-toa')
  rule(MANY, 'absent', 'untrusted', 'no-toa')
  rule(MANY, 'absent', 'trusted')
  rule(MANY, 'plausible', 'untrusted')
  t.same(given, [])
  rule(1, 'absent', 'trusted', 'no-toa')
  t.same(given, ['NO_TOA'])
})

t.test('one claim is enough', async (t) => {
  const { given, rule } = create()
  rule(1, 'plausible', 'trusted')
  rule(2 * MANY, 'absent', 'trusted', 'no-toa')
  t.same(given, [])
})

t.test('a stranger from this host, unless it is a proxy or is not known', async (t) => {
  const asked: Endpoint[] = []
  const { given, rule, suspicions, checked } = create((peer) => asked.push(peer) > 0 && peer.port === 81)
  suspicions.ruled(checked('absent'), 'untrusted', undefined)
  rule(1, 'absent', 'trusted', undefined, loopback)
  t.same(asked, [])
  rule(1, 'absent', 'untrusted', undefined, { ...loopback, port: 81 })
  t.same(given, [])
  rule(2, 'absent', 'untrusted', undefined, loopback)
  t.same(given, ['SIDECAR'])
  t.equal(asked.length, 2, 'only the first')
})

t.test('a request of which nothing was seen', async (t) => {
  const { given, suspicions } = create()
  suspicions.unobserved()
  t.same(given, ['UNOBSERVED'])
})
