import type { FastifyRealIpOptions } from 'fastify-real-ip'
import type { Seen, Visit } from './visit'

/** A place where connections carry TOA, as far as this machine allows one; or where they do not. */
export interface Stage {
  /** What is played here, in a sentence or two. */
  readonly about: string
  /** The way of the first connection: a column for each station, the first line of which is its name. */
  way (first: Seen): ReadonlyArray<readonly string[]>
  /** As a user would write them. */
  readonly options: FastifyRealIpOptions
  /** Whether the plugin knows who sent the packets. */
  readonly checked: boolean
  readonly seen: readonly Seen[]
  /** The options of the server that stays up for the user's own requests, and what there is to know about those. */
  readonly own: { readonly options: FastifyRealIpOptions, readonly about: string }
  /** Once that server is closed. */
  close (): Promise<void>
}

/** Opens the stage and makes the visits. Throws an error whose message says why that cannot be here. */
export type OpenStage = (visits: readonly Visit[], stop: AbortSignal) => Promise<Stage>

/** What the plugin made of a connection from the balancer, for its drawing. */
export function judgement ({ answer }: Seen): string {
  if (answer === undefined) return 'resets it'
  return answer.realAddress.source === 'transport-peer' ? 'no: peer' : 'yes: TOA'
}
