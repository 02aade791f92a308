import type { RealAddress } from '../../types'

/** The client of a test's inject() request. The symbol is private to this package: no received request can have it. */
export const kClient = Symbol('fastify-real-ip.client')

export interface Staged {
  readonly [kClient]?: RealAddress
}
