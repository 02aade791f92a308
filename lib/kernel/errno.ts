import { constants } from 'node:os'

const names: string[] = []
for (const [name, errno] of Object.entries(constants.errno)) names[errno] ??= name
// On Linux ENOTSUP has the same number.
names[constants.errno.EOPNOTSUPP] = 'EOPNOTSUPP'

/** The name of an errno, e.g. `'ENOPROTOOPT'`. */
export function errnoName (errno: number): string {
  return names[errno] ?? `errno ${errno}`
}
