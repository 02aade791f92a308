import { invalid } from './values'

const isToken = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/

// Any client can make the next proxy remove these (RFC 9110 §7.6.1, RFC 9113 §8.2.2).
const hopByHop = new Set([
  'connection', 'keep-alive', 'proxy-authenticate', 'proxy-authorization', 'proxy-connection', 'te', 'trailer',
  'transfer-encoding', 'upgrade'
])

// Common headers that never contain a client's address.
const others = new Set([
  'accept', 'accept-encoding', 'accept-language', 'authorization', 'content-length', 'content-type', 'cookie', 'date',
  'expect', 'host', 'origin', 'referer', 'user-agent', 'via', 'x-forwarded-host', 'x-forwarded-port',
  'x-forwarded-proto', 'x-request-id'
])

/**
 * Checks the name of a header that may contain a client's address; returns it in lower case. Throws
 * FST_REAL_IP_INVALID_OPTION.
 */
export function checkHeaderName (value: unknown): string {
  const wrong = (why: string) => invalid(
    "'forwarded.header' takes 'x-forwarded-for', 'forwarded', or the name of a header whose value is one address, " +
      `like 'cf-connecting-ip': ${why}`)
  if (typeof value !== 'string') throw wrong(`the name must be a string, not ${typeof value}`)
  if (!isToken.test(value)) throw wrong(`${JSON.stringify(value)} is not a valid header name`)
  const name = value.toLowerCase()
  if (hopByHop.has(name)) throw wrong(`'${name}' is a hop-by-hop header, which the next proxy removes`)
  if (others.has(name)) throw wrong(`'${name}' never contains an address`)
  return name
}
