import type { FastifyRequest } from 'fastify'
import type { RealAddress, RealIpKeyOptions } from '../../types'
import { type Address, formatAddress, parseAddress } from '../address/address'
import { firstOfPrefix } from '../address/ranges'
import { checkRealIpKeyOptions } from '../options/options'
import { isNotCalled, isOptions } from './not-called'
import { isShared } from './shared'

const unobserved: Pick<RealAddress, 'address' | 'family' | 'reason'> =
  { address: undefined, family: undefined, reason: 'unobserved' }
const isArgument = isOptions('ipv6Subnet')

export function realIpKey (options: RealIpKeyOptions = {}): (request: FastifyRequest) => string {
  if (isNotCalled(options, 'realIpKey', isArgument)) return realIpKey()(options as FastifyRequest) as never
  const subnet = checkRealIpKeyOptions(options)
  return (request) => {
    const { address, family, reason } = request?.realAddress ?? unobserved
    if (address === undefined) return `unknown:${reason}`
    const key = family === 'IPv6' && subnet < 128
      ? formatAddress(firstOfPrefix(parseAddress(address) as Address, subnet))
      : address
    return isShared(reason) ? `${reason}:${key}` : key
  }
}
