import t from 'tap'
import { formatAddress, parseAddress } from '../../lib/address/address'
import { Checked, claimOf, Course, fallback } from '../../lib/trust/evidence'
import { createEndpoint } from '../../lib/kernel/sockaddr'
import { peerAddress } from '../../lib/kernel/peer-search'
import { applySettings, type ClaimColumn, type Ruling, rulingOf } from '../../lib/trust/table'
import { answerOf, reasonOf, sourceOf, textOf } from '../../lib/trust/verdict'

const address = (text: string) => parseAddress(text)!
const endpoint = (text: string) => ({ ...createEndpoint(), ...address(text), port: 51234 })
const course = new Course(['vtoa', 'getpeername']).after('EDOM')
const found = {
  IPv4: () => claimOf(endpoint('203.0.113.7'), course),
  IPv6: () => claimOf(endpoint('2001:db8::7'), course),
  nothing: () => fallback('198.51.100.1', 80, 'no-answer')
}
const virtualServer = { address: '192.0.2.80', port: 443, family: 'IPv4', vpcId: 7 } as const
const peer = address('10.0.0.2')
const columns: ClaimColumn[] = ['absent', 'plausible', 'invalid']
const settings = ['ignore', 'reject', 'believe'] as const

function * all (): Iterable<{ readonly name: string, readonly evidence: Checked, readonly ruling: Ruling, readonly claimed: boolean }> {
  for (const setting of settings) {
    const table = applySettings({ untrusted: setting, missing: setting, invalid: setting, unverified: setting })
    for (const [row, rulings] of Object.entries(table)) {
      for (const column of columns) {
        for (const [family, claim] of Object.entries(found)) {
          for (const isKnown of [false, true]) {
            for (const ambiguous of [false, true]) {
              const evidence = new Checked(claim(), column)
              evidence.ambiguous = ambiguous
              evidence.virtualServer = virtualServer
              if (isKnown) evidence.peer = peerAddress(peer)
              evidence.peerPort = isKnown ? 40000 : 0
              yield {
                name: [setting, row, column, family, isKnown, ambiguous].join(' '),
                evidence,
                ruling: rulingOf(rulings, ambiguous ? 'invalid' : column),
                claimed: family !== 'nothing'
              }
            }
          }
        }
      }
    }
  }
}

t.test('whose address each cell gives, whatever is known of the connection', async (t) => {
  const seen = new Set<string>()
  for (const { name, evidence, ruling, claimed } of all()) {
    const { claim } = evidence
    const own = { address: claim.address, port: claimed ? 51234 : 80, family: claim.realAddress.family, source: claimed ? 'getpeername' : 'peer' }
    const sender = evidence.peer && { address: formatAddress(peer), port: 40000, family: 'IPv4', source: 'transport-peer' }
    const none = { address: undefined, port: undefined, family: undefined, source: 'none' }
    const expected = ruling.answer === 'none' ? none : ruling.answer === 'peer' ? sender ?? (claimed ? none : own) : own
    const { address, port, family, source, reason, trust, transportPeer, virtualServer: shown, attempts } = answerOf(evidence, ruling)
    t.same({ address, port, family, source }, expected, name)
    t.equal(trust, ruling.trust)
    t.same(transportPeer, sender && { address: sender.address, port: sender.port })
    t.equal(attempts, claim.realAddress.attempts)
    const isBelieved = trust === 'trusted' ? evidence.column !== 'invalid' && !evidence.ambiguous : expected === own
    t.same(shown, isBelieved ? virtualServer : undefined, `${name}: the virtual server`)
    const why = ruling.reason ?? (claimed ? undefined : 'no-answer')
    t.equal(reason, evidence.ambiguous && ruling.reason === 'implausible' ? 'ambiguous' : why, `${name}: the reason`)
    // What is made without the object says the same.
    t.same([textOf(evidence, ruling), sourceOf(evidence, ruling), reasonOf(evidence, ruling)], [address, source, reason], name)
    seen.add(source)
  }
  t.same([...seen].sort(), ['getpeername', 'none', 'peer', 'transport-peer'])
})

t.test('a port that is not known is none', async (t) => {
  const evidence = new Checked(found.IPv4(), 'plausible')
  evidence.peer = peerAddress(peer)
  const ruling = rulingOf(applySettings({ untrusted: 'ignore', missing: 'ignore', invalid: 'ignore', unverified: 'ignore' }).unlisted, 'plausible')
  t.same(answerOf(evidence, ruling).transportPeer, { address: '10.0.0.2', port: undefined })
})
