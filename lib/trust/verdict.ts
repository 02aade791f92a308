import type { RealAddress, Reason, TransportPeer } from '../../types'
import { answer, asClaim, type Checked } from './evidence'
import type { PeerAddress } from '../kernel/peer-search'
import type { Ruling } from './table'

// What a cell of the decision table makes of a connection.

/** Whose address is the answer. */
function whose ({ claim, peer }: Checked, ruling: Ruling): 'source' | 'peer' | 'none' {
  if (ruling.answer === 'source' || ruling.answer === 'claim') return 'source'
  if (ruling.answer === 'none') return 'none'
  if (peer !== undefined) return 'peer'
  // Without a policy to find it, the transport peer of an absent claim is what the source says.
  return asClaim(claim) === undefined ? 'source' : 'none'
}

export function sourceOf (evidence: Checked, ruling: Ruling): RealAddress['source'] {
  switch (whose(evidence, ruling)) {
    case 'source': return asClaim(evidence.claim)?.course.source ?? evidence.claim.realAddress.source
    case 'peer': return 'transport-peer'
    case 'none': return 'none'
  }
}

/** Whether the connection's TOA counts: what it says of the virtual server is a claim too. */
function isBelieved (evidence: Checked, ruling: Ruling): boolean {
  if (ruling.trust !== 'trusted') return whose(evidence, ruling) === 'source'
  return evidence.column !== 'invalid' && !evidence.ambiguous
}

/** The text of that address, which takes no object. */
export function textOf (evidence: Checked, ruling: Ruling): string | undefined {
  switch (whose(evidence, ruling)) {
    case 'source': return evidence.claim.address
    case 'peer': return (evidence.peer as PeerAddress).text
    case 'none': return undefined
  }
}

export function reasonOf ({ claim, ambiguous }: Checked, ruling: Ruling): Reason | undefined {
  if (ambiguous && ruling.reason === 'implausible') return 'ambiguous'
  return ruling.reason ?? (asClaim(claim) === undefined ? claim.realAddress.reason : undefined)
}

export function answerOf (evidence: Checked, ruling: Ruling): RealAddress {
  const { peer, peerPort } = evidence
  const source = evidence.claim.realAddress
  const transportPeer = peer && Object.freeze({ address: peer.text, port: peerPort === 0 ? undefined : peerPort })
  const reason = reasonOf(evidence, ruling)
  const { trust } = ruling
  const virtualServer = isBelieved(evidence, ruling) ? evidence.virtualServer : undefined
  const provenance = {
    ...(reason && { reason }), trust, transportPeer, ...(virtualServer && { virtualServer }), attempts: source.attempts
  }
  switch (whose(evidence, ruling)) {
    case 'source': return answer({ ...source, ...provenance })
    case 'peer': return answer({
      ...transportPeer as TransportPeer, family: (peer as PeerAddress).family, source: 'transport-peer', ...provenance
    })
    case 'none': return answer({ address: undefined, port: undefined, family: undefined, source: 'none', ...provenance })
  }
}
