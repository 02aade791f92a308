import type { FastifyRequest } from 'fastify'
import type { RealAddress } from '../../types'
import { parseAddress } from '../address/address'
import { compileRanges } from '../address/ranges'
import { FST_REAL_IP_INVALID_OPTION } from '../errors'
import { copyList } from '../options/trust'
import { isNotCalled } from './not-called'
import { isShared } from './shared'

// `undefined` for values that are no object.
const isArgument = (given: unknown) => Array.isArray(given) || typeof given !== 'object' || given === null

type Asked = FastifyRequest | RealAddress

export function realIpIn (list: ReadonlyArray<string>): (asked: Asked) => boolean {
  // A function would count as true, e.g. as allowList of @fastify/rate-limit.
  if (isNotCalled(list, 'realIpIn', isArgument)) return false as never
  if (!Array.isArray(list)) {
    throw new FST_REAL_IP_INVALID_OPTION("realIpIn() takes a list of addresses and ranges, like ['10.0.0.0/8']")
  }
  const { includes } = compileRanges(copyList(list), 'realIpIn()')
  return (asked) => {
    try {
      const { address, trust, reason } = 'realAddress' in asked ? asked.realAddress : asked as RealAddress
      if (address === undefined || (trust !== 'trusted' && trust !== 'untrusted') || isShared(reason)) return false
      const parsed = parseAddress(address)
      return parsed !== undefined && includes(parsed)
    } catch {
      // Neither a request nor an answer.
      return false
    }
  }
}
