import type { Reason } from '../../types'

const reasons: ReadonlySet<string | undefined> = new Set([
  'no-toa', 'proxy-local', 'forwarded-missing', 'implausible', 'ambiguous', 'forwarded-malformed'
])

/** Whether an address with this reason belongs to a host that many clients share. */
export const isShared = (reason: Reason | undefined): boolean => reasons.has(reason)
