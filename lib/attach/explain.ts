import { constants } from 'node:os'
import { errnoName } from '../kernel/errno'
import type { BpfError } from './bpf'

const { EACCES, E2BIG, EBUSY, EINVAL, ENOENT, ENOMEM, ENOSPC, ENOSYS, EPERM } = constants.errno

/** The circumstances of a failed bpf(2) command. */
export interface Context {
  /** As uname(1) gives it. */
  readonly release: string
  readonly root: boolean
  readonly cgroup?: string
  /** A program that excludes others, if one was found. */
  readonly exclusive?: string | undefined
}

const PRIVILEGE = 'run this as root (sudo), in a container with --privileged; CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON ' +
  'are enough since Linux 5.11; older kernels also need CAP_SYS_RESOURCE'

/** One or two sentences: what failed, and how to fix it. */
export function explain (error: BpfError, { release, root, cgroup = 'the cgroup', exclusive }: Context): string {
  const { command, errno, subject } = error
  const name = errnoName(errno)
  if (errno === ENOSYS) {
    return `bpf(2) is not available (${name}): it needs CONFIG_BPF_SYSCALL, and in a container a seccomp profile ` +
      'that allows bpf.'
  }
  if (command === 'link') {
    if (errno === EPERM) {
      return exclusive === undefined
        ? `${cgroup} accepts no more programs (${name}): one that was attached without BPF_F_ALLOW_MULTI forbids ` +
          'others there or below. bpftool cgroup tree shows which; detach it, or attach it with BPF_F_ALLOW_MULTI.'
        : `${exclusive} forbids other programs in ${cgroup} (${name}): detach it, attach it with BPF_F_ALLOW_MULTI, ` +
          'or choose a cgroup that is not below it.'
    }
    if (errno === E2BIG) {
      return `${cgroup} already has 64 programs of one kind (${name}), the most that Linux allows: detach one, or ` +
        'choose a cgroup below it.'
    }
    if (errno === ENOENT || errno === constants.errno.ENODEV || errno === constants.errno.EBADF) {
      return `${cgroup} has been removed (${name}): attach to the slice above it, which outlives services and ` +
        'containers.'
    }
    if (errno === EINVAL) return needsCgroupBpf(name)
  }
  if (command === 'load') {
    if (errno === EPERM) return privilege(name, root, release)
    if (errno === EINVAL && error.log === '') return needsCgroupBpf(name)
    return `The kernel's verifier rejects the program ${subject} (${name}, Linux ${release}): please report it with ` +
      'its log, which --verbose prints.'
  }
  if (command === 'pin' || command === 'get') {
    if (errno === EACCES || errno === EPERM) {
      const why = root ? 'a security module, or the mount options of the BPF file system, forbid it' : PRIVILEGE
      return `${subject} may not be used (${name}): ${why}.`
    }
    if (errno === ENOSPC || errno === ENOMEM) {
      return `${subject} cannot be created (${name}): this cgroup or host is out of memory.`
    }
  }
  if (errno === EPERM || errno === EACCES) return privilege(name, root, release)
  if (errno === ENOMEM) {
    return `The kernel has no memory for ${subject} (${name}): use a smaller list, or raise the memory limit of ` +
      'the cgroup that this command runs in.'
  }
  if (errno === EBUSY) return `${subject} is in use (${name}): try again.`
  if (command === 'map' && errno === EINVAL) {
    return `The kernel does not support the map ${subject} (${name}): Linux 5.10 or later with ` +
      `CONFIG_BPF_SYSCALL is needed, this is ${release}.`
  }
  return `bpf(2) failed with ${name} for ${subject} (${command}, Linux ${release}).`
}

function privilege (name: string, root: boolean, release: string): string {
  if (!root) return `This process may not load eBPF programs (${name}): ${PRIVILEGE}.`
  return kernelBefore(release, 5, 11)
    ? `This process may not load eBPF programs or lock memory for them (${name}): ${PRIVILEGE}; or raise the limit, ` +
      'ulimit -l unlimited.'
    : `This process may not load eBPF programs, although it is root (${name}): a container without the capabilities, ` +
      'or a security module. Run this on the host, or in a container with --privileged.'
}

const needsCgroupBpf = (name: string): string =>
  `This kernel cannot attach programs to cgroups (${name}): it needs CONFIG_CGROUP_BPF.`

export function kernelBefore (release: string, major: number, minor: number): boolean {
  const [a = 0, b = 0] = release.split('.').map((text) => Number.parseInt(text, 10))
  return a < major || (a === major && b < minor)
}
