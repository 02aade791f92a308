import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { RealAddress } from '../../types'
import { type Address, formatAddress, parseAddress } from '../address/address'
import { FST_REAL_IP_INVALID_OPTION } from '../errors'
import { isPlausible } from '../trust/plausible'
import { loopback, type ReadHops } from './forwarded'
import { hostOf, protocolOf } from './origin'

/** What Fastify makes of the connection or of `trustProxy`. `hostname` and `port` follow from `host`. */
export const overridden = ['ip', 'ips', 'protocol', 'host'] as const

/** Throws where `trustProxy` decides already; call it before anything is decorated. */
export function checkOverride (app: FastifyInstance): void {
  // Fastify gives requests this property with 'trustProxy' alone.
  if (!app.hasRequestDecorator('ips')) return
  throw new FST_REAL_IP_INVALID_OPTION("'overrideRequest' and Fastify's 'trustProxy' would both decide what request.ip is: remove 'trustProxy'")
}

/** Lets other plugins see the answer's address as `request.ip`, and what the same hop says of protocol and host. */
export function overrideRequest (
  app: FastifyInstance, header: string, readHops: ReadHops | undefined, answerOf: (request: FastifyRequest) => RealAddress
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

/** From the nearest to the client's, as Fastify orders `request.ips`: the hops that walk() believed. */
function addressesOf (answer: RealAddress, readHops: ReadHops | undefined, rawHeaders: ReadonlyArray<string>): string[] {
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
