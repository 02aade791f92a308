import type { RealAddress, Reason, TransportPeer } from '../types'
import { answer, asClaim, type Checked } from './evidence'
import type { PeerAddress } from './transport-peer'
import type { Cell } from './trust'

// What a cell of the decision table makes of a connection. `believes` is whether `unverified` is 'believe'.

/** Whose address is the answer. */
function whose ({ claim, peer }: Checked, cell: Cell, believes: boolean): 'source' | 'peer' | 'none' {
  if (cell.answer === 'source' || cell.answer === 'claim' || (believes && cell.believe !== undefined)) return 'source'
  if (cell.answer === 'none') return 'none'
  if (peer !== undefined) return 'peer'
  // Without a policy to find it, the transport peer of an absent claim is what the source says.
  return asClaim(claim) === undefined ? 'source' : 'none'
}

export function sourceOf (evidence: Checked, cell: Cell, believes: boolean): RealAddress['source'] {
  switch (whose(evidence, cell, believes)) {
    case 'source': return asClaim(evidence.claim)?.course.source ?? evidence.claim.realAddress.source
    case 'peer': return 'transport-peer'
    case 'none': return 'none'
  }
}

export function reasonOf ({ claim, ambiguous }: Checked, cell: Cell): Reason | undefined {
  if (ambiguous && cell.reason === 'implausible') return 'ambiguous'
  return cell.reason ?? (asClaim(claim) === undefined ? claim.realAddress.reason : undefined)
}

export function answerOf (evidence: Checked, cell: Cell, believes: boolean): RealAddress {
  const { peer, peerPort, virtualServer } = evidence
  const source = evidence.claim.realAddress
  const transportPeer = peer && Object.freeze({ address: peer.text, port: peerPort === 0 ? undefined : peerPort })
  const reason = reasonOf(evidence, cell)
  const { trust } = cell
  const provenance = {
    ...(reason && { reason }), trust, transportPeer, ...(virtualServer && { virtualServer }), attempts: source.attempts
  }
  switch (whose(evidence, cell, believes)) {
    case 'source': return answer({ ...source, ...provenance })
    case 'peer': return answer({
      ...transportPeer as TransportPeer, family: (peer as PeerAddress).family, source: 'transport-peer', ...provenance
    })
    case 'none': return answer({ address: undefined, port: undefined, family: undefined, source: 'none', ...provenance })
  }
}
