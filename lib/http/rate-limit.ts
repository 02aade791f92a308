import type { FastifyRequest } from 'fastify'
import type { RealAddress, RealIpKeyOptions, Reason } from '../../types'
import { type Address, formatAddress, parseAddress } from '../address/address'
import { checkRealIpKeyOptions } from '../options/options'
import { mask } from '../address/ranges'

// Why an address is not the client's own but that of a host which many clients share.
const hidden = new Set<Reason | undefined>(['no-toa', 'proxy-local', 'implausible', 'ambiguous', 'forwarded-malformed'])
const unobserved: Pick<RealAddress, 'address' | 'family' | 'reason'> = { address: undefined, family: undefined, reason: 'unobserved' }

export function realIpKey (options: RealIpKeyOptions = {}): (request: FastifyRequest) => string {
  const subnet = checkRealIpKeyOptions(options)
  return (request) => {
    const { address, family, reason } = request.realAddress ?? unobserved
    if (address === undefined) return `unknown:${reason}`
    const key = family === 'IPv6' && subnet < 128 ? firstOfSubnet(address, subnet) : address
    return hidden.has(reason) ? `${reason}:${key}` : key
  }
}

function firstOfSubnet (text: string, prefix: number): string {
  return formatAddress(mask(parseAddress(text) as Address, prefix, (word, bits) => word & bits))
}
