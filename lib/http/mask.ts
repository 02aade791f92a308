import type { RealAddress, TransportPeer } from '../../types'
import { canonicalAddress, formatAddress, parseAddress, sameAddress } from '../address/address'
import { firstOfPrefix } from '../address/ranges'
import type { Mask } from '../options/log'

/** The fields of an answer that log lines contain. */
export type Shown = Pick<RealAddress, 'address' | 'port' | 'source' | 'trust' | 'reason' | 'transportPeer'>

interface Masking {
  show (answer: RealAddress): Shown
  /** `undefined` for text that is not an address. */
  readonly maskText: ((text: string) => string | undefined) | undefined
}

const whole: Masking = { show: (answer) => answer, maskText: undefined }

/**
 * Addresses with fewer bits, and without the port, which would tell clients apart. A trusted transport peer is the
 * operator's own host and stays whole, unless it is the answer's address.
 */
export function compileMask (mask: Mask | undefined): Masking {
  if (mask === undefined) return whole
  const { ipv4, ipv6 } = mask

  function maskText (text: string): string | undefined {
    // Without the zone, which the mask would keep.
    const address = parseAddress(canonicalAddress(text) ?? '')
    return address && formatAddress(firstOfPrefix(address, address.family === 'IPv4' ? ipv4 : ipv6))
  }

  return {
    maskText,
    show (answer) {
      const { source, trust, reason, transportPeer } = answer
      return {
        address: answer.address === undefined ? undefined : maskText(answer.address),
        port: undefined,
        source,
        trust,
        ...(reason && { reason }),
        transportPeer: transportPeer && mayBeClient(answer, transportPeer)
          ? { address: maskText(transportPeer.address) as string, port: undefined }
          : transportPeer
      }
    }
  }
}

function mayBeClient ({ address, trust }: RealAddress, peer: TransportPeer): boolean {
  if (trust !== 'trusted' || address === undefined) return true
  // The peer's text is from the wire: the same IPv4 address may be written as IPv6 there.
  const [client, sender] = [parseAddress(address), parseAddress(peer.address)]
  return client === undefined || sender === undefined || sameAddress(client, sender)
}
