import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { RealAddress } from '../../types'
import { type Address, formatAddress, parseAddress } from '../address/address'
import { FST_REAL_IP_INVALID_OPTION } from '../errors'
import { isPlausible } from '../trust/plausible'
import { loopback, type ReadHops } from './forwarded'
import { hostOf, protocolOf } from './origin'

/** Properties that Fastify derives from the connection or `trustProxy`. `hostname` and `port` follow from `host`. */
export const overridden = ['ip', 'ips', 'protocol', 'host'] as const

/** Whether 'trustProxy' is set: only then does Fastify decorate requests with `ips`. */
export const hasTrustProxy = (app: FastifyInstance): boolean => app.hasRequestDecorator('ips')

/** Throws if `trustProxy` is set. Call it before anything is decorated. */
export function checkOverride (app: FastifyInstance): void {
  if (!hasTrustProxy(app)) return
  throw new FST_REAL_IP_INVALID_OPTION("'overrideRequest' cannot be combined with Fastify's 'trustProxy', " +
    "which also sets request.ip: remove 'trustProxy'")
}

/** Makes `request.ip` the answer's address for other plugins, and takes protocol and host from the same hop. */
export function overrideRequest (
  app: FastifyInstance, header: string, readHops: ReadHops | undefined,
  answerOf: (request: FastifyRequest) => RealAddress
): void {
  const getters: Readonly<Record<typeof overridden[number], (request: FastifyRequest) => unknown>> = {
    ip: (request) => answerOf(request).address,
    ips: (request) => addressesOf(answerOf(request), readHops, request.raw.rawHeaders),
    protocol: (request) => protocolOf(answerOf(request), header, request.raw.rawHeaders) ??
      ((request.socket as { readonly encrypted?: boolean }).encrypted === true ? 'https' : 'http'),
    host: (request) => hostOf(answerOf(request), header, request.raw.rawHeaders) ??
      request.raw.headers.host ?? request.raw.headers[':authority'] ?? ''
  }
  for (const name of overridden) {
    const read = getters[name]
    app.decorateRequest(name as string, { getter (this: FastifyRequest) { return read(this) } })
  }
}

/** Nearest hop first, like Fastify's `request.ips`: the hops that walk() believed. */
function addressesOf (
  answer: RealAddress, readHops: ReadHops | undefined, rawHeaders: ReadonlyArray<string>
): string[] {
  const { via, address, reason } = answer
  const all = [via === undefined ? address : via.address]
  if (via !== undefined && readHops !== undefined) {
    let at = via.address === undefined ? loopback : parseAddress(via.address) as Address
    for (const hop of readHops(rawHeaders)) {
      if (hop === undefined || !isPlausible(hop.address, at)) break
      at = hop.address
      const text = formatAddress(hop.address)
      all.push(text)
      if (text === address && reason === undefined) break
    }
  }
  return all.filter((text) => text !== undefined)
}
