import t from 'tap'
import { formatAddress, parseAddress } from '../../lib/address/address'
import { createEndpoint, type Endpoint } from '../../lib/kernel/sockaddr'
import { Course } from '../../lib/sources/course'
import { Checked } from '../../lib/trust/checked'
import { Claim, Fallback } from '../../lib/trust/claim'
import { applySettings, type ClaimColumn, type Ruling } from '../../lib/trust/table'
import { answerOf, answersClaim, reasonOf, sourceOf } from '../../lib/trust/verdict'

const address = (text: string) => parseAddress(text)!
const endpoint = (text: string) => ({ ...createEndpoint(), ...address(text), port: 51234 })
const course = new Course(['vtoa', 'getpeername']).after('EDOM')
const found = {
  IPv4: () => new Claim(endpoint('203.0.113.7'), course),
  IPv6: () => new Claim(endpoint('2001:db8::7'), course),
  nothing: () => new Fallback('198.51.100.1', 80, 'no-answer')
}
const virtualServer = { address: '192.0.2.80', port: 443, family: 'IPv4', vpcId: 7 } as const
const header = { length: 16, version: 2, local: true, source: undefined, destination: undefined, tlvs: new Uint8Array() } as const
const peer = { ...endpoint('10.0.0.2'), port: 40000 }
const columns: ClaimColumn[] = ['absent', 'local', 'plausible', 'implausible', 'ambiguous', 'fault']
const settings = ['ignore', 'reject', 'believe'] as const

function * all (): Iterable<{ readonly name: string, readonly evidence: Checked, readonly ruling: Ruling, readonly claimed: boolean }> {
  for (const setting of settings) {
    const table = applySettings({ untrusted: setting, missing: setting, invalid: setting, unverified: setting }, false)
    for (const [row, rulings] of Object.entries(table)) {
      for (const column of columns) {
        for (const [family, claim] of Object.entries(found)) {
          for (const isKnown of [false, true]) {
            yield {
              name: [setting, row, column, family, isKnown].join(' '),
              evidence: new Checked(claim(), isKnown ? peer : undefined, { column, virtualServer, header }),
              ruling: rulings[column],
              claimed: family !== 'nothing'
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
    const expected = ruling.address === 'none' ? none : ruling.address === 'peer' ? sender ?? (claimed ? none : own) : own
    const answer = answerOf(evidence, ruling)
    const { address, port, family, source, reason, trust, transportPeer, virtualServer: shown, attempts } = answer
    t.same({ address, port, family, source }, expected, name)
    t.equal(trust, ruling.trust)
    t.same(transportPeer, sender && { address: sender.address, port: sender.port })
    t.equal(attempts, claim.realAddress.attempts)
    const isBelieved = trust === 'trusted' ? evidence.column === 'plausible' || evidence.column === 'absent' : expected === own
    t.same(shown, isBelieved ? virtualServer : undefined, `${name}: the virtual server`)
    const isShown = isBelieved || (trust === 'trusted' && evidence.column === 'local')
    t.equal(answer.proxyProtocol?.version, isShown ? 2 : undefined, `${name}: the header`)
    t.same(Object.entries(answer).filter(([, value]) => value === undefined).map(([key]) => key).filter((key) => /reason|virtual|proxy/.test(key)), [])
    const why = ruling.reason ?? (claimed || evidence.column === 'local' ? undefined : 'no-answer')
    t.equal(reason, why, `${name}: the reason`)
    // What is made without the object says the same.
    t.same([sourceOf(evidence, ruling), reasonOf(evidence, ruling)], [source, reason], name)
    if (answersClaim(evidence, ruling)) t.equal(address, claim.address, `${name}: the claim's address`)
    seen.add(source)
  }
  t.same([...seen].sort(), ['getpeername', 'none', 'peer', 'transport-peer'])
})

t.test('the address of the answer is taken from the claim where both are the same', (t) => {
  const { listed, unlisted, unknown, any } = applySettings({
    untrusted: 'ignore', missing: 'ignore', invalid: 'ignore', unverified: 'ignore'
  }, false)
  const claim = (of: Endpoint) => new Claim(of, course)
  const other = endpoint('203.0.113.7')
  t.ok(answersClaim(new Checked(claim(peer), peer), listed.absent))
  t.ok(answersClaim(new Checked(claim(peer), peer), unlisted.absent))
  t.ok(answersClaim(new Checked(claim(other), peer), listed.plausible))
  t.ok(answersClaim(new Checked(new Fallback('192.0.2.1', 80, 'no-fd'), undefined), any.absent))
  t.notOk(answersClaim(new Checked(claim(other), peer), unlisted.plausible))
  t.notOk(answersClaim(new Checked(claim(other), undefined), unknown.plausible))
  t.notOk(answersClaim(new Checked(new Fallback('192.0.2.1', 80, 'no-answer'), peer), listed.absent))
  const staged = { ...claim(other).realAddress, address: '198.51.100.1' }
  t.notOk(answersClaim(new Checked(claim(other), peer, { staged }), listed.plausible))
  t.end()
})

t.test('a virtual server that is not known is left out', async (t) => {
  const evidence = new Checked(found.IPv4(), peer, { column: 'plausible' })
  t.notOk('virtualServer' in answerOf(evidence, applySettings({ untrusted: 'ignore', missing: 'ignore', invalid: 'ignore', unverified: 'ignore' }, false).listed.plausible))
})

t.test('a port that is not known is none', async (t) => {
  const evidence = new Checked(found.IPv4(), { ...peer, port: 0 })
  t.equal(evidence.column, 'plausible')
  const settings = { untrusted: 'ignore', missing: 'ignore', invalid: 'ignore', unverified: 'ignore' } as const
  t.same(answerOf(evidence, applySettings(settings, false).unlisted.plausible).transportPeer, { address: '10.0.0.2', port: undefined })
})

t.test('nobody hides behind an address that there is not', async (t) => {
  const settings = { untrusted: 'ignore', missing: 'ignore', invalid: 'ignore', unverified: 'ignore' } as const
  const { absent } = applySettings(settings, false).any
  const none = new Fallback(undefined, undefined, 'no-fd')
  t.match(answerOf(new Checked(none, undefined), absent), { source: 'none', trust: 'trusted', reason: 'no-address' })
  t.match(answerOf(new Checked(new Fallback('192.0.2.1', 80, 'no-fd'), undefined), absent), { address: '192.0.2.1', reason: 'no-toa' })
  t.match(answerOf(new Checked(none, peer), absent), { address: '10.0.0.2', reason: 'no-toa' })
})
