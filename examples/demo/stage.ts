import type { FastifyRealIpOptions } from 'fastify-real-ip'
import type { Seen, Visit } from './visit'

/** A place where connections carry TOA, if this machine allows one. */
export interface Stage {
  /** What the demo simulates, in a sentence or two. */
  readonly about: string
  /** The hops of the first connection: a column per hop, with its name on the first line. */
  way (first: Seen): ReadonlyArray<readonly string[]>
  /** As a user would write them. */
  readonly options: FastifyRealIpOptions
  /** Whether the plugin knows the sender of the packets. */
  readonly checked: boolean
  readonly seen: readonly Seen[]
  /** The options of the server for the user's own requests, with a note about them. */
  readonly own: { readonly options: FastifyRealIpOptions, readonly about: string }
  /** Called after that server is closed. */
  close (): Promise<void>
}

/** Opens the stage and makes the visits. Throws an error whose message says why that is impossible. */
export type OpenStage = (visits: readonly Visit[], stop: AbortSignal) => Promise<Stage>

/** The answer for a connection from the balancer, for its drawing. */
export function judgement ({ answer }: Seen): string {
  if (answer === undefined) return 'resets it'
  return answer.realAddress.source === 'transport-peer' ? 'no: peer' : 'yes: TOA'
}
