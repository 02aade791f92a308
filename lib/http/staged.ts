import type { RealAddress } from '../../types'

/**
 * The client of a request that a test makes with inject(). A symbol of this package alone: no real request has it, nor
 * can one get it by anything that is sent.
 */
export const kClient = Symbol('fastify-real-ip.client')

export interface Staged {
  readonly [kClient]?: RealAddress
}
