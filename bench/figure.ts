import type { Row } from './report'

export interface Cores {
  readonly server: number
  readonly client: number
}

export interface Run {
  /** of those that ask requests: each variant and plain Fastify, there and back */
  readonly pairs: number
  readonly cores: Cores | undefined
  readonly progress: (done: string) => void
}

export interface Figure {
  readonly name: string
  readonly title: string
  measure (run: Run): Promise<Row[]>
}

/** What was measured of a figure. */
export interface Measured {
  readonly name: string
  readonly date: string
  readonly title: string
  readonly rows: readonly Row[]
}

/** What bench/results.json holds: each figure of one run, all of one machine. */
export interface Results {
  readonly node: string
  readonly kernel: string
  readonly machine: string
  /** server and client on cores of their own */
  readonly pinned: boolean
  readonly figures: readonly Measured[]
}
