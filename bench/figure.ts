import type { Row } from './report'

export interface Cores {
  readonly server: number
  readonly client: number
}

export interface Run {
  /** Sessions of fresh processes in a trial; `undefined`: as many as each figure needs */
  readonly sessions: number | undefined
  readonly cores: Cores | undefined
  readonly progress: (done: string) => void
}

export interface Figure {
  readonly name: string
  readonly title: string
  measure (run: Run): Promise<Row[]>
}

/** The measurements of a figure. */
export interface Measured {
  readonly name: string
  readonly date: string
  readonly title: string
  readonly rows: readonly Row[]
}

/** The contents of bench/results.json: each figure from one run, all from one machine. */
export interface Results {
  readonly node: string
  readonly kernel: string
  readonly machine: string
  /** Whether server and client had their own cores */
  readonly pinned: boolean
  readonly figures: readonly Measured[]
}
