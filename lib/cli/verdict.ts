export interface Verdict {
  /** `'n/a'`: does not matter on this machine. */
  readonly state: 'good' | 'bad' | 'unknown' | 'n/a'
  readonly message: string
  /** How to fix it, as a command if possible. Present if bad or unknown. */
  readonly fix?: string
}

export const good = (message: string, fix?: string): Verdict =>
  ({ state: 'good', message, ...(fix !== undefined && { fix }) })
export const bad = (message: string, fix: string): Verdict => ({ state: 'bad', message, fix })
export const unknown = (message: string, fix: string): Verdict => ({ state: 'unknown', message, fix })
export const notApplicable = (message: string): Verdict => ({ state: 'n/a', message })
