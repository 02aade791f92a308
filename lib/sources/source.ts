import type { KernelSource } from '../../types'
import type { Endpoint } from '../kernel/sockaddr'

/** A kernel source of the client's address. One class per source, so that V8 can inline the calls. */
export interface Source {
  readonly name: KernelSource
  /** Decodes the connection's address into `into`; or returns the reason why there is none, with `into` unchanged. */
  read (fd: number, into: Endpoint): string | undefined
  /** Why this source cannot work on this kernel now; `undefined` if it can. */
  missing (): string | undefined
}
