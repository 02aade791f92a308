import { closeSync, openSync, readFileSync, realpathSync, statfsSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'

// <linux/magic.h>
const CGROUP2_SUPER_MAGIC = 0x63677270
const BPF_FS_MAGIC = 0xcafe4a11
// The inode of the host's root cgroup; a container's root has another.
const ROOT_INODE = 1n

export interface Cgroup {
  readonly path: string
  /** Its inode number, which is also the kernel's cgroup id. */
  readonly id: bigint
  readonly isRoot: boolean
  readonly fd: number
  close (): void
}

/** Opens a cgroup v2 directory. Throws an Error whose message is meant for the user. */
export function openCgroup (given: string): Cgroup {
  let path: string
  let fd: number
  try {
    path = realpathSync(given)
    fd = openSync(path, 'r')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'EACCES') throw new Error(`${given} cannot be read (EACCES): run this as root.`)
    throw new Error(`There is no cgroup ${given} (${code}). ${whereCgroup2()}`)
  }
  try {
    if (statfsSync(path).type !== CGROUP2_SUPER_MAGIC) {
      throw new Error(`${path} is not a cgroup v2 directory. ${whereCgroup2()}`)
    }
    const stat = statSync(path, { bigint: true })
    if (!stat.isDirectory()) throw new Error(`${path} is a file: use the cgroup's directory, ${dirname(path)}.`)
    const isMount = cgroup2Mounts().includes(path)
    if (isMount && stat.ino !== ROOT_INODE) {
      throw new Error(`${path} is the root of a container's own cgroups, not the host's: ` +
        'run this on the host, or in a container with the host\'s /sys/fs/cgroup and its cgroup namespace.')
    }
    return { path, id: stat.ino, isRoot: isMount, fd, close: () => { closeSync(fd) } }
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** The id of the cgroup at `path`; `undefined` if it is not a cgroup v2. */
export function cgroupId (path: string): bigint | undefined {
  try {
    return statfsSync(path).type === CGROUP2_SUPER_MAGIC ? statSync(path, { bigint: true }).ino : undefined
  } catch {
    return undefined
  }
}

/** The visible cgroups of this process, innermost first. Linux only. */
export function ownCgroups (): Array<{ readonly path: string, readonly id: bigint }> {
  const own = /^0::(.*)$/m.exec(read('/proc/self/cgroup'))?.[1]
  const found: Array<{ path: string, id: bigint }> = []
  for (let within = own; within !== undefined; within = within === '/' ? undefined : dirname(within)) {
    for (const mount of cgroup2Mounts().slice(0, 1)) {
      const path = within === '/' ? mount : join(mount, within)
      const id = cgroupId(path)
      if (id !== undefined) found.push({ path, id })
    }
  }
  return found
}

/** Throws an Error whose message is meant for the user. */
export function checkBpffs (path: string): void {
  let type: number | undefined
  try {
    ({ type } = statfsSync(path))
  } catch {}
  if (type !== BPF_FS_MAGIC) {
    throw new Error(`${path} is not a BPF file system, which keeps the programs: mount -t bpf bpf ${path}; or set ` +
      'another one with --bpffs.')
  }
}

function whereCgroup2 (): string {
  const [mount] = cgroup2Mounts()
  return mount === undefined
    ? 'cgroup v2 is not mounted here: mount -t cgroup2 none /sys/fs/cgroup; under `ip netns exec`, which hides it, ' +
      'use nsenter --net.'
    : `cgroup v2 is mounted at ${mount}; /proc/PID/cgroup contains a process's path in it, after 0::.`
}

// Mount points, without those hidden by another mount.
function cgroup2Mounts (): string[] {
  return read('/proc/self/mounts').split('\n').map((line) => line.split(' '))
    .filter(([, path = '', type]) => type === 'cgroup2' && cgroupId(path) !== undefined)
    .map(([, path]) => path as string)
}

const read = (path: string): string => readFileSync(path, 'utf8')
