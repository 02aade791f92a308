import type { RealAddress, Reason, TransportPeer } from '../../types'
import { formatAddress } from '../address/address'
import type { Endpoint } from '../kernel/sockaddr'
import { describeProxyHeader } from '../sources/proxy-tlvs'
import type { Checked } from './checked'
import { answer } from './claim'
import type { Ruling } from './table'

// Applies a ruling to a connection.

/** Whose address is the answer. */
function whose ({ claim, peer }: Checked, ruling: Ruling): 'source' | 'peer' | 'none' {
  if (ruling.answer === 'source' || ruling.answer === 'claim') return 'source'
  if (ruling.answer === 'none') return 'none'
  if (peer !== undefined) return 'peer'
  // If the claim is absent and the transport peer unknown, its address is the one that Node.js reports.
  return claim.course === undefined ? 'source' : 'none'
}

export function sourceOf (evidence: Checked, ruling: Ruling): RealAddress['source'] {
  switch (whose(evidence, ruling)) {
    case 'source': return evidence.claim.realAddress.source
    case 'peer': return 'transport-peer'
    case 'none': return 'none'
  }
}

export function reasonOf (evidence: Checked, { reason }: Ruling): Reason | undefined {
  const { claim } = evidence
  if (claim.course !== undefined) return reason
  const { address, reason: why } = claim.realAddress
  // Without an address, nobody can share it.
  const hidesNobody = reason === 'no-toa' && address === undefined && evidence.peer === undefined
  return hidesNobody ? why : reason ?? why
}

/** Whether to believe what a claim says beside the address, e.g. the virtual server. */
function isBelieved (evidence: Checked, ruling: Ruling): boolean {
  if (ruling.trust !== 'trusted') return whose(evidence, ruling) === 'source'
  return evidence.column === 'plausible' || evidence.column === 'absent'
}

export function answerOf (evidence: Checked, ruling: Ruling): RealAddress {
  const source = evidence.claim.realAddress
  const transportPeer = evidence.peer && describePeer(evidence.peer)
  const reason = reasonOf(evidence, ruling)
  const isCredible = isBelieved(evidence, ruling)
  const virtualServer = isCredible ? evidence.virtualServer : undefined
  const { header } = evidence
  const isCredibleHeader = isCredible || (ruling.trust === 'trusted' && evidence.column === 'local')
  const proxyProtocol = isCredibleHeader && header !== undefined ? describeProxyHeader(header) : undefined
  const provenance = {
    ...(reason && { reason }),
    trust: ruling.trust,
    transportPeer,
    ...(virtualServer && { virtualServer }),
    ...(proxyProtocol && { proxyProtocol }),
    attempts: source.attempts
  }
  switch (whose(evidence, ruling)) {
    case 'source': return answer({ ...source, ...provenance })
    case 'peer': return answer({
      ...transportPeer as TransportPeer,
      family: (evidence.peer as Endpoint).family,
      source: 'transport-peer',
      ...provenance
    })
    case 'none': return answer({
      address: undefined,
      port: undefined,
      family: undefined,
      source: 'none',
      ...provenance
    })
  }
}

export function describePeer (peer: Endpoint): TransportPeer {
  return Object.freeze({ address: formatAddress(peer), port: peer.port === 0 ? undefined : peer.port })
}
