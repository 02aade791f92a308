export interface Verdict {
  /** `'n/a'`: it does not matter here, or nothing that works needs it. */
  readonly state: 'good' | 'bad' | 'unknown' | 'n/a'
  readonly message: string
  /** What to do about it, a command where there is one. Whatever is bad or unknown has it. */
  readonly fix?: string
}

export const good = (message: string, fix?: string): Verdict => ({ state: 'good', message, ...(fix !== undefined && { fix }) })
export const bad = (message: string, fix: string): Verdict => ({ state: 'bad', message, fix })
export const unknown = (message: string, fix: string): Verdict => ({ state: 'unknown', message, fix })
export const notApplicable = (message: string): Verdict => ({ state: 'n/a', message })
