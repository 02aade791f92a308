import type { KernelSource } from '../../types'
import type { Endpoint } from '../kernel/sockaddr'

/** One way to learn the client's address from the kernel. A class each, so that V8 can tell them apart and inlines them. */
export interface Source {
  readonly name: KernelSource
  /** Reads the connection's address into `into`; where it has none, says why and leaves `into` alone. */
  read (fd: number, into: Endpoint): string | undefined
  /** Why this source cannot work on this kernel as it is now; undefined where it can. */
  missing (): string | undefined
}
