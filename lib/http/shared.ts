import type { Reason } from '../../types'

const reasons: ReadonlySet<string | undefined> = new Set([
  'no-toa', 'proxy-local', 'forwarded-missing', 'implausible', 'ambiguous', 'forwarded-malformed'
])

/** Whether an address with this reason is not the client's own but that of a host which many clients share. */
export const isShared = (reason: Reason | undefined): boolean => reasons.has(reason)
