import type { Estimate } from './statistics'

/** One line of the results: a ratio within this run, or bytes, and its control. */
export interface Row {
  readonly name: string
  readonly unit?: 'B'
  readonly value?: Estimate
  /** The noise of this run: 1 (0 B) on an ideal machine. */
  readonly control?: Estimate
  /** The upper limit, of the median unless noted. */
  readonly target?: number
  readonly judgedBy?: 'median' | 'upper end'
  /** With fewer sessions the interval means little. */
  readonly samplesNeeded?: number
  /** Why there is no value. */
  readonly notShown?: string
  /** Absolute times of this machine, not comparable with another. */
  readonly absolute?: Record<string, number>
}

/** A control that is further from the truth than this marks a run as too noisy to quote. */
const CONTROL_OFF = { ratio: 0.015, B: 10 }

export function formatRow (row: Row): string {
  const head = `  ${row.name.padEnd(66)} `
  if (row.value === undefined) return `${head}not shown: ${row.notShown}`
  const why = whyNotQuotable(row)
  return head + [
    format(row.value, row.unit).padEnd(24),
    (row.control === undefined ? '' : `control ${format(row.control, row.unit)}`).padEnd(32),
    row.target === undefined ? '' : `target ≤ ${row.target}${row.judgedBy === 'upper end' ? ' (upper end)' : ''}: ${isMet(row) ? 'met' : 'missed'}`,
    why === undefined ? '' : `(not quotable: ${why})`
  ].join(' ').trimEnd()
}

export function format ({ median, low, high }: Estimate, unit: Row['unit']): string {
  return `${formatNumber(median, unit)}${unit === 'B' ? ' B' : ''} [${formatNumber(low, unit)}, ${formatNumber(high, unit)}]`
}

export const formatNumber = (value: number, unit: Row['unit']) => unit === 'B' ? value.toFixed(0) : value.toFixed(3)

/** `undefined` if a value may be quoted. */
export function whyNotQuotable ({ value, control, unit, samplesNeeded = 1 }: Row): string | undefined {
  if (value !== undefined && value.samples < samplesNeeded) return `${value.samples} sessions of ${samplesNeeded}`
  if (control === undefined) return undefined
  const off = unit === 'B' ? Math.abs(control.median) > CONTROL_OFF.B : Math.abs(control.median - 1) > CONTROL_OFF.ratio
  return off ? `control ${formatNumber(control.median, unit)}` : undefined
}

export function isMet ({ value, target = Infinity, judgedBy = 'median' }: Row): boolean {
  return value !== undefined && (judgedBy === 'upper end' ? value.high : value.median) <= target
}
