import type { RealAddress, Reason, TransportPeer } from '../../types'
import { formatAddress } from '../address/address'
import { type Endpoint, sameEndpoint } from '../kernel/sockaddr'
import { describeProxyHeader } from '../sources/proxy-tlvs'
import type { Checked } from './checked'
import { answer } from './claim'
import type { Ruling } from './table'

// Applies a ruling to a connection.

/** Whose address is used. */
function whose ({ claim, peer }: Checked, ruling: Ruling): Ruling['address'] {
  if (ruling.address !== 'peer') return ruling.address
  if (peer !== undefined) return 'peer'
  // If the claim is absent and the transport peer unknown, its address is the one that Node.js reports.
  return claim.course === undefined ? 'source' : 'none'
}

/** Whether the answer's address is the claim's, which can be the peer's own. */
export function answersClaim (evidence: Checked, ruling: Ruling): boolean {
  const { claim, peer, staged } = evidence
  if (staged !== undefined) return false
  const whoseIs = whose(evidence, ruling)
  return whoseIs === 'source' ||
    (whoseIs === 'peer' && peer !== undefined && claim.course !== undefined && sameEndpoint(claim, peer))
}

export function sourceOf (evidence: Checked, ruling: Ruling): RealAddress['source'] {
  switch (whose(evidence, ruling)) {
    case 'source': return evidence.claim.source
    case 'peer': return 'transport-peer'
    case 'none': return 'none'
  }
}

export function reasonOf (evidence: Checked, { reason }: Ruling): Reason | undefined {
  const { claim } = evidence
  // A header that names no client is no reason of its own.
  if (claim.course !== undefined || evidence.column === 'local') return reason
  const { address, reason: why } = claim
  // Without an address, nobody can share it.
  const hidesNobody = reason === 'no-toa' && address === undefined && evidence.peer === undefined
  return hidesNobody ? why : reason ?? why
}

/** Whether to believe the contents of a claim besides the address, e.g. the virtual server. */
function isBelieved (evidence: Checked, ruling: Ruling): boolean {
  if (ruling.trust !== 'trusted') return whose(evidence, ruling) === 'source'
  return evidence.column === 'plausible' || evidence.column === 'absent'
}

/** Written out: spreading frozen objects took 4 µs per connection. */
export function answerOf (evidence: Checked, ruling: Ruling): RealAddress {
  const { claim, peer, header } = evidence
  const whoseIs = whose(evidence, ruling)
  const transportPeer = peer && describePeer(peer)
  const fields: Mutable<RealAddress> = {
    address: whoseIs === 'source' ? claim.address : whoseIs === 'peer' ? transportPeer?.address : undefined,
    port: whoseIs === 'source' ? claim.knownPort : whoseIs === 'peer' ? transportPeer?.port : undefined,
    family: whoseIs === 'source' ? claim.knownFamily : whoseIs === 'peer' ? peer?.family : undefined,
    source: sourceOf(evidence, ruling),
    trust: ruling.trust,
    transportPeer,
    attempts: claim.attempts
  }
  const reason = reasonOf(evidence, ruling)
  if (reason !== undefined) fields.reason = reason
  const isCredible = isBelieved(evidence, ruling)
  if (isCredible && evidence.virtualServer !== undefined) fields.virtualServer = evidence.virtualServer
  const isCredibleHeader = isCredible || (ruling.trust === 'trusted' && evidence.column === 'local')
  if (isCredibleHeader && header !== undefined) fields.proxyProtocol = describeProxyHeader(header)
  return answer(fields)
}

type Mutable<Type> = { -readonly [Key in keyof Type]: Type[Key] }

export function describePeer (peer: Endpoint): TransportPeer {
  return Object.freeze({ address: formatAddress(peer), port: peer.port === 0 ? undefined : peer.port })
}
