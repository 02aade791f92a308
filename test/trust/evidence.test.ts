import t from 'tap'
import { Checked, claimOf, Course, fallback } from '../../lib/trust/evidence'
import { createEndpoint, type Endpoint } from '../../lib/kernel/sockaddr'

const endpoints: Endpoint[] = [
  { family: 'IPv4', port: 51234, w0: 0, w1: 0, w2: 0, w3: 0xcb007107 | 0 },
  { family: 'IPv6', port: 443, w0: 0x20010db8, w1: 1, w2: 2, w3: 7 }
]

t.test('a claim gives back the endpoint that it was made of, and nothing of another', async (t) => {
  const course = new Course(['vtoa'])
  const into = createEndpoint()
  const [v4, v6] = endpoints.map((endpoint) => claimOf(endpoint, course))
  for (const [claim, endpoint] of [[v6, endpoints[1]], [v4, endpoints[0]], [v6, endpoints[1]]] as const) {
    claim!.copyTo(into)
    t.same(into, endpoint)
  }
  t.match(v4!.realAddress, { address: '203.0.113.7', port: 51234, family: 'IPv4', source: 'vtoa', trust: 'unchecked', attempts: [] })
  t.match(v6!.realAddress, { address: '2001:db8:0:1:0:2:0:7', port: 443, family: 'IPv6' })
  t.equal(v4!.realAddress, v4!.realAddress, 'one object for all requests')
  t.equal(claimOf({ ...endpoints[0]!, port: 0 }, course).realAddress.port, undefined)
})

t.test('connections that went the same way share what was attempted', async (t) => {
  const start = new Course(['vtoa', 'getpeername'])
  const none = start.after('ENOPROTOOPT')
  const other = start.after('ESRCH')
  t.equal(start.after('ENOPROTOOPT'), none)
  t.equal(start.after('ESRCH'), other)
  t.same(none.attempts, [{ source: 'vtoa', reason: 'ENOPROTOOPT' }])
  t.same(other.after('EBADF').attempts, [{ source: 'vtoa', reason: 'ESRCH' }, { source: 'getpeername', reason: 'EBADF' }])
  t.same([start.source, none.source, other.after('EBADF').source], ['vtoa', 'getpeername', undefined])
})

t.test("what is made of a socket's own remote address", async (t) => {
  const portOf = (port: unknown) => fallback('192.0.2.7', port, 'injected').realAddress.port
  t.same([1, 80, 65535].map(portOf), [1, 80, 65535])
  t.same([0, -1, 65536, 1.5, '80', undefined, null].map(portOf), Array(7).fill(undefined), 'no port')
  t.equal(fallback('192.0.2.7', 80, 'no-fd').realAddress.family, 'IPv4')
  t.match(fallback('2001:db8::7', 80, 'no-fd').realAddress, { family: 'IPv6', source: 'peer', reason: 'no-fd' })
  for (const [reason, says] of [['no-fd', 'no-address'], ['injected', 'no-address'], ['closed', 'closed'], ['no-answer', 'no-answer']] as const) {
    t.match(fallback(undefined, 80, reason).realAddress, { address: undefined, port: undefined, family: undefined, source: 'none', reason: says })
  }
})

t.test('what is noted of a checked connection is noted apart', async (t) => {
  const checked = new Checked(fallback(undefined, 80, 'no-fd'), 'absent')
  const flags = ['pending', 'ambiguous', 'refused'] as const
  const noted = () => ({ port: checked.peerPort, ...Object.fromEntries(flags.map((flag) => [flag, checked[flag]])) })
  const expected = { port: 0, pending: false, ambiguous: false, refused: false }
  t.same(noted(), expected)
  for (const port of [65535, 0x5555, 0, 0xaaaa]) {
    checked.peerPort = expected.port = port
    t.same(noted(), expected)
    for (const value of [true, true, false, false, true]) {
      for (const flag of flags) {
        checked[flag] = expected[flag] = value
        t.same(noted(), expected, `${flag} ${value}`)
      }
    }
  }
})
