import type { Address } from '../address/address'

export const isLoopback = ({ family, w0, w1, w2, w3 }: Address): boolean =>
  family === 'IPv4' ? w3 >>> 24 === 127 : w0 === 0 && w1 === 0 && w2 === 0 && w3 === 1

/**
 * Whether a client of `peer` can have the address: not 0.0.0.0/8, multicast, 255.255.255.255, ::/96 or ff00::/8;
 * loopback only from a loopback peer. Private ranges are valid.
 */
export function isPlausible (claim: Address, peer: Address | undefined): boolean {
  if (isLoopback(claim)) return peer !== undefined && isLoopback(peer)
  const first = (claim.family === 'IPv4' ? claim.w3 : claim.w0) >>> 24
  if (claim.family === 'IPv4') return first !== 0 && (first < 224 || (first >= 240 && claim.w3 !== -1))
  return first !== 0xff && (claim.w0 !== 0 || claim.w1 !== 0 || claim.w2 !== 0)
}
