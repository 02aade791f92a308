import type { Estimate } from './statistics'

/** One line of the result: a ratio within this run, or bytes, with the same figure of a thing against itself beside it. */
export interface Row {
  readonly name: string
  readonly unit?: 'B'
  readonly value?: Estimate
  /** The noise of this run: 1 (0 B) is what a perfect machine would give. */
  readonly control?: Estimate
  /** At most this. */
  readonly target?: number
  /** Why there is no value. */
  readonly notShown?: string
  /** Absolute times of this machine, which say nothing about another. */
  readonly absolute?: Record<string, number>
}

/** Further from the truth than this, a control says that the run was too noisy to quote. */
const CONTROL_OFF = { ratio: 0.015, B: 10 }

export function formatRow (row: Row): string {
  const head = `  ${row.name.padEnd(66)} `
  if (row.value === undefined) return `${head}not shown: ${row.notShown}`
  return head + [
    format(row.value, row.unit).padEnd(24),
    (row.control === undefined ? '' : `control ${format(row.control, row.unit)}`).padEnd(32),
    verdict(row)
  ].join(' ').trimEnd()
}

function format ({ median, low, high }: Estimate, unit: Row['unit']): string {
  const text = (value: number) => unit === 'B' ? value.toFixed(0) : value.toFixed(3)
  return `${text(median)}${unit === 'B' ? ' B' : ''} [${text(low)}, ${text(high)}]`
}

function verdict ({ value, control, target, unit }: Row): string {
  const notes = []
  if (target !== undefined && value !== undefined) {
    notes.push(`target ≤ ${target}: ${value.median <= target ? 'met' : 'missed'}`)
  }
  if (control !== undefined) {
    const off = unit === 'B' ? Math.abs(control.median) > CONTROL_OFF.B : Math.abs(control.median - 1) > CONTROL_OFF.ratio
    if (off) notes.push('(the control is off: too noisy to quote)')
  }
  return notes.join(' ')
}
