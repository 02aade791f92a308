import { readdirSync, readFileSync, readlinkSync } from 'node:fs'

/** How many netlink sockets this process has. */
export function netlinkSockets (): number {
  const inodes = new Set(readFileSync('/proc/net/netlink', 'utf8').split('\n').slice(1).map((line) => line.trim().split(/\s+/).at(-1)))
  return readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return inodes.has(/^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/self/fd/${fd}`))?.[1])
    } catch {
      return false // the folder's own
    }
  }).length
}
