import type { KernelSource } from '../../types'
import type { Endpoint } from '../kernel/sockaddr'

/** A kernel source of the client's address. */
export interface Source {
  readonly name: KernelSource
  /** Decodes the connection's address into `into`; or returns the reason why there is none. */
  read (fd: number, into: Endpoint): string | undefined
  /** Why this source cannot work on this kernel now; `undefined` if it can. */
  missing (): string | undefined
}
