import t from 'tap'
import { copyEndpoint, createEndpoint, type Endpoint } from '../../lib/kernel/sockaddr'
import { Course } from '../../lib/sources/course'
import { Checked, withoutSender } from '../../lib/trust/checked'
import { Claim, Fallback } from '../../lib/trust/claim'

const endpoints: Endpoint[] = [
  { family: 'IPv4', port: 51234, w0: 0, w1: 0, w2: 0, w3: 0xcb007107 | 0 },
  { family: 'IPv6', port: 443, w0: 0x20010db8, w1: 1, w2: 2, w3: 7 }
]

t.test('a claim gives back the endpoint that it was made of, and nothing of another', async (t) => {
  const course = new Course(['vtoa'])
  const into = createEndpoint()
  const [v4, v6] = endpoints.map((endpoint) => new Claim(endpoint, course))
  for (const [claim, endpoint] of [[v6, endpoints[1]], [v4, endpoints[0]], [v6, endpoints[1]]] as const) {
    copyEndpoint(claim!, into)
    t.same(into, endpoint)
  }
  t.match(v4!.realAddress, { address: '203.0.113.7', port: 51234, family: 'IPv4', source: 'vtoa', trust: 'unchecked', attempts: [] })
  t.match(v6!.realAddress, { address: '2001:db8:0:1:0:2:0:7', port: 443, family: 'IPv6' })
  t.equal(v4!.realAddress, v4!.realAddress, 'one object for all requests')
  t.equal(new Claim({ ...endpoints[0]!, port: 0 }, course).realAddress.port, undefined)
  t.equal(new Claim(endpoints[0]!, new Course(['vtoa']).after('ENOPROTOOPT')).source, 'transport-peer', 'where no source is left')
})

t.test("what is made of a socket's own remote address", async (t) => {
  const portOf = (port: unknown) => new Fallback('192.0.2.7', port, 'injected').realAddress.port
  t.same([1, 80, 65535].map(portOf), [1, 80, 65535])
  t.same([0, -1, 65536, 1.5, '80', undefined, null].map(portOf), Array(7).fill(undefined), 'no port')
  t.equal(new Fallback('192.0.2.7', 80, 'no-fd').realAddress.family, 'IPv4')
  t.match(new Fallback('2001:db8::7', 80, 'no-fd').realAddress, { family: 'IPv6', source: 'peer', reason: 'no-fd' })
  for (const [reason, says] of [
    ...(['native-unavailable', 'no-fd', 'unobserved', 'injected'] as const).map((reason) => [reason, 'no-address'] as const), ['closed', 'closed'], ['no-answer', 'no-answer']
  ] as const) {
    t.match(new Fallback(undefined, 80, reason).realAddress, { address: undefined, port: undefined, family: undefined, source: 'none', reason: says })
  }
})

t.test('what is noted of a checked connection is noted apart', async (t) => {
  const claim = new Fallback(undefined, 80, 'no-fd')
  const flags = ['isUnix', 'isInjected'] as const
  for (const column of ['absent', 'plausible', 'ambiguous'] as const) {
    for (const isUnix of [true, false]) {
      for (const isInjected of [true, false]) {
        for (const port of [65535, 0x5555, 0, 0xaaaa]) {
          const peer = { ...createEndpoint(), port }
          const checked = new Checked(claim, peer, { column, isUnix, isInjected })
          const noted = { column: checked.column, port: checked.peer?.port, ...Object.fromEntries(flags.map((flag) => [flag, checked[flag]])) }
          t.same(noted, { column, port, isUnix, isInjected })
        }
      }
    }
  }
  t.same(Object.fromEntries(flags.map((flag) => [flag, new Checked(claim, undefined)[flag]])), { isUnix: false, isInjected: false })
})

t.test('what another application found is believed only without a policy', async (t) => {
  const implausible = new Claim({ ...endpoints[0]!, w3: 0x7f000001 }, new Course(['vtoa']))
  const column = (found: Claim | Fallback, hasPolicy: boolean) => withoutSender(found, hasPolicy).column
  t.equal(column(implausible, false), 'plausible')
  t.equal(column(implausible, true), 'implausible')
  for (const hasPolicy of [false, true]) t.equal(column(new Fallback('192.0.2.1', 80, 'closed'), hasPolicy), 'absent')
  t.equal(withoutSender(implausible, true).peer, undefined)
})
