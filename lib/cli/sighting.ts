import type { Attempt, KernelSource, RealAddress } from '../../types'
import type { SegmentOption } from './segment-options'

type Decision = Pick<RealAddress, 'address' | 'port' | 'family' | 'source' | 'trust' | 'reason' | 'proxyProtocol'>

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
  /** With --proxy-protocol: a description of the PROXY header, or of its fault, in lines. */
  readonly header?: ReadonlyArray<string>
  readonly decision: Decision & {
    /** Whether the plugin resets such a connection. */
    readonly reset: boolean
  }
  /** What cannot be seen, and conclusions. */
  readonly notes: ReadonlyArray<string>
}

/** What a source returned: an address, or a reason. */
export type Asked = { readonly source: KernelSource, readonly address: string, readonly port: number } | Attempt
