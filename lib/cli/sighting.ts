import type { Attempt, KernelSource, RealAddress } from '../../types'
import type { SegmentOption } from './segment-options'

/** One connection as `watch --json` prints it. */
export interface Seen {
  readonly connection: number
  readonly time: string
  /** Who sent the packets, and how that was learned; `null` if unknown. */
  readonly transportPeer: {
    readonly address: string
    readonly port: number | undefined
    readonly by: 'saved-syn' | 'sock_diag'
  } | null
  /** `null`: the kernel did not save it. */
  readonly syn: { readonly options: ReadonlyArray<SegmentOption>, readonly payload: boolean } | null
  /** The options of the segment that completed the handshake; `null` if it was not captured. */
  readonly ack: ReadonlyArray<SegmentOption> | null
  readonly sources: ReadonlyArray<Asked>
  /** With --proxy-protocol: what the PROXY header of a connection that must have one says, or what is wrong with it, in lines. */
  readonly header?: ReadonlyArray<string>
  readonly decision: Pick<RealAddress, 'address' | 'port' | 'family' | 'source' | 'trust' | 'reason' | 'proxyProtocol'> & {
    /** Whether the plugin resets such a connection. */
    readonly reset: boolean
  }
  /** What cannot be seen, and conclusions. */
  readonly notes: ReadonlyArray<string>
}

/** What a source returned: an address, or a reason. */
export type Asked = { readonly source: KernelSource, readonly address: string, readonly port: number } | Attempt
