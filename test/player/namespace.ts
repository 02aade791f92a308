import { spawn, spawnSync, type ChildProcess, type SpawnOptions } from 'node:child_process'
import { existsSync, readlinkSync } from 'node:fs'

/** The one address of each family that the server's kernel owns. */
export const serverAddresses = { IPv4: '10.0.0.1', IPv6: 'fd00::1' } as const
/**
 * Addresses of the balancer that the player plays. Any other address would do too: none but the server's own is anybody's,
 * so no kernel answers for it, and each has its route to the player.
 */
export const balancerAddresses = { IPv4: '10.0.0.2', IPv6: 'fd00::2' } as const

/** The veth pair: on one end Linux with its servers, on the other the player. */
export const serverInterface = { name: 'server', mac: '02:00:00:00:00:01' } as const
export const balancerInterface = { name: 'balancer', mac: '02:00:00:00:00:02' } as const

const MARK = 'FASTIFY_REAL_IP_NAMESPACE'

// Without ARP there are no neighbours to resolve, no address is probed for duplicates, and frames to the balancer bear no
// address of its interface, so that the kernel at that end, which is the same one, takes none of them for its own.
const setUp = `
PATH="$PATH:/usr/sbin:/sbin"
v6 () { if test -e /proc/net/if_inet6; then echo "$@"; fi; }
ip -batch - <<COMMANDS || exit 125
link set lo up
link add ${serverInterface.name} address ${serverInterface.mac} arp off type veth peer name ${balancerInterface.name} address ${balancerInterface.mac} arp off
address add ${serverAddresses.IPv4}/32 dev ${serverInterface.name}
$(v6 link set ${serverInterface.name} addrgenmode none)
$(v6 link set ${balancerInterface.name} addrgenmode none)
$(v6 address add ${serverAddresses.IPv6}/128 dev ${serverInterface.name} nodad)
link set ${balancerInterface.name} up
link set ${serverInterface.name} up
route add 0.0.0.0/0 dev ${serverInterface.name}
$(v6 route add ::/0 dev ${serverInterface.name})
COMMANDS
export ${MARK}="$(readlink /proc/self/ns/net)"
exec "$@"`

/** Whether this process runs in a namespace that was made here. */
export function insideNamespace (): boolean {
  return process.platform === 'linux' && process.env[MARK] === readlinkSync('/proc/self/ns/net')
}

/** Whether this namespace has IPv6, which the kernel may be without. */
export function hasIPv6 (): boolean {
  return existsSync('/proc/net/if_inet6')
}

/** Why no namespace of one's own is to be had here, in one sentence; undefined where it is. */
export function namespaceUnavailable (): string | undefined {
  const flags = unshareFlags()
  return flags.startsWith('-') ? undefined : flags
}

/** Runs a Node.js program in a new network namespace, which ends with it. */
export function spawnInNamespace (program: string, args: readonly string[] = [], options: SpawnOptions = {}): ChildProcess {
  const [command, ...rest] = namespaceCommand(program, args)
  return spawn(command, rest, { stdio: 'inherit', ...options })
}

/** The command that does so. */
export function namespaceCommand (program: string, args: readonly string[] = []): [command: string, ...args: string[]] {
  const flags = unshareFlags()
  if (!flags.startsWith('-')) throw new Error(flags)
  return ['unshare', flags, '--', 'sh', '-c', setUp, 'sh', process.execPath, program, ...args]
}

let known: string | undefined

/** The flags with which unshare(1) gives a namespace; or the sentence that says why none do. */
function unshareFlags (): string {
  return known ??= tryUnshare()
}

function tryUnshare (): string {
  if (process.platform !== 'linux') return `network namespaces are Linux's, this is ${process.platform}`
  try {
    require('koffi')
  } catch (error) {
    return `packet sockets need koffi, which cannot be loaded (${firstLine((error as Error).message)})`
  }
  let reason = ''
  // A user namespace makes an ordinary user root within; real root does without, and keeps its rights over files.
  for (const flags of process.getuid?.() === 0 ? ['-n', '-Urn'] : ['-Urn']) {
    const { error, status, stderr } = spawnSync('unshare', [flags, '--', 'sh', '-c', setUp, 'sh', 'true'], { encoding: 'utf8' })
    if (status === 0) return flags
    reason ||= error !== undefined ? error.message : firstLine(stderr) || `exit status ${status}`
  }
  return `a private network namespace with a veth pair cannot be made here (${reason})`
}

function firstLine (text: string): string {
  return text.trim().split('\n', 1)[0] as string
}
