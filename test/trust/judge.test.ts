import t from 'tap'
import type { RealAddress } from 'fastify-real-ip'
import { checkOptions } from '../../lib/options/options'
import { createEndpoint } from '../../lib/kernel/sockaddr'
import { Checked } from '../../lib/trust/checked'
import { Fallback } from '../../lib/trust/claim'
import { Judge } from '../../lib/trust/judge'

const noError = (message: string) => { throw new Error(message) }
const judgeOf = (options: object) => new Judge(checkOptions(options), noError)
const peer = (w3: number) => ({ ...createEndpoint(), w3, port: 1 })

t.test('admit is asked again if address, trust, source or reason changes, and only then', async (t) => {
  const first: RealAddress = Object.freeze({
    address: '203.0.113.7', port: 1, family: 'IPv4', source: 'vtoa', trust: 'trusted', transportPeer: undefined, attempts: []
  })
  const changes: Array<Partial<RealAddress>> = [
    { address: '203.0.113.8' }, { trust: 'untrusted' }, { source: 'getpeername' }, { reason: 'no-toa' }
  ]
  for (const change of changes) {
    const asked: RealAddress[] = []
    const judge = judgeOf({
      admit (about: RealAddress) {
        asked.push(about)
        return asked.length === 1
      }
    })
    const evidence = new Checked(new Fallback(undefined, undefined, 'injected'), undefined, { staged: first })
    const stage = (staged: RealAddress) => { Object.assign(evidence, { staged }) }
    t.match(judge.decide(evidence), { rejects: false }, 'admitted')
    stage({ ...first, port: 2, attempts: [{ source: 'vtoa', reason: 'EDOM' }] })
    t.match(judge.decide(evidence), { rejects: false })
    t.equal(asked.length, 1, 'it is not asked about the rest')
    stage({ ...first, ...change })
    t.equal(judge.decide(evidence), undefined, JSON.stringify(change))
    t.equal(judge.decide(evidence), undefined)
    t.equal(asked.length, 2)
  }
})

t.test('whom the policy trusts to send PROXY headers', async (t) => {
  const of = (judge: Judge) => [judge.trusts(peer(0x0a000001), false), judge.trusts(peer(0x0b000001), false), judge.trusts(undefined, false), judge.trusts(undefined, true)]
  const source = { sources: ['proxy-protocol'] }
  const list = { ...source, trustedPeers: ['10.0.0.0/8'] }
  t.same(of(judgeOf(list)), [true, false, false, false])
  t.same(of(judgeOf({ ...list, proxyProtocol: { from: ['10.0.0.0/8'] } })), [true, false, false, false])
  const judge = judgeOf({ ...list, proxyProtocol: { from: ['unix'] } })
  t.same(of(judge), [true, false, false, true], 'a Unix-domain socket by name')
  judge.setTrustedPeers([])
  t.same(of(judge), [false, false, false, true])
  judge.setTrustedPeers('any')
  t.same(of(judge), [true, true, true, true])
  t.same(of(judgeOf({ trustedPeers: ['10.0.0.0/8'] })), [true, false, false, false])
})
