/** Invalid arguments; the message is meant for the user. */
export class UsageError extends Error {}

/** Messages of the plugin begin with its name, and this program's do anyway. */
export const withoutName = (message: string): string => message.replace(/^fastify-real-ip: /, '')

/** The list of --trusted-peers. Throws a UsageError if it is empty. */
export function splitPeers (text: string): 'any' | string[] {
  const list = text.split(',').map((entry) => entry.trim()).filter((entry) => entry !== '')
  if (list.length === 0) throw new UsageError('--trusted-peers is empty: write addresses, ranges, or any.')
  return list.length === 1 && list[0] === 'any' ? 'any' : list
}
