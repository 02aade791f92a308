import { release as kernelRelease } from 'node:os'
import { dirname } from 'node:path'
import type { Bpf } from '../kernel/libc'
import { type Attached, Attaching, type AttachRequest } from './attaching'
import { BpfCommands, BpfError } from './bpf'
import { type Cgroup, checkBpffs, openCgroup } from './cgroup'
import { explain, kernelBefore } from './explain'
import { AttachError, isRoot, kinds, removePins } from './pins'

// <sys/file.h>, <linux/bpf.h>
const LOCK_EX = 2
const BPF_F_ALLOW_MULTI = 2

/**
 * Loads and attaches the programs to a cgroup, or replaces them one by one, each atomically. Claims of connections
 * survive. Leftovers of a killed attach are used or replaced. Throws AttachError, with everything undone.
 */
export function attach (bpf: Bpf, request: AttachRequest, release = kernelRelease()): Attached {
  if (kernelBefore(release, 5, 10)) throw new AttachError(`attach needs Linux 5.10 or later, this is ${release}.`)
  return inCgroup(bpf, request.cgroup, request.bpffs, release, (commands, cgroup) => {
    if (kernelBefore(release, 5, 11)) bpf.unlimitLockedMemory()
    return new Attaching(commands, cgroup, request).run()
  })
}

/** Detaches the programs, and removes what a killed attach left. Throws AttachError. */
export function detach (bpf: Bpf, from: { readonly cgroup: string } | { readonly id: string }, bpffs: string): void {
  const release = kernelRelease()
  if ('cgroup' in from) {
    inCgroup(bpf, from.cgroup, bpffs, release, (commands, { id, path }) => {
      removePins(commands, bpffs, id, path)
    })
    return
  }
  try {
    checkBpffs(bpffs)
    removePins(new BpfCommands(bpf), bpffs, from.id, `the cgroup ${from.id}`)
  } catch (error) {
    throw toAttachError(error, release, undefined)
  }
}

function inCgroup<T> (
  bpf: Bpf, path: string, bpffs: string, release: string, work: (commands: BpfCommands, cgroup: Cgroup) => T
): T {
  let cgroup: Cgroup | undefined
  const commands = new BpfCommands(bpf)
  try {
    cgroup = openCgroup(path)
    checkBpffs(bpffs)
    // Serializes attaches: two at once could pin a claims map that the programs do not use. Closing the descriptor
    // unlocks.
    const locked = bpf.flock(cgroup.fd, LOCK_EX)
    if (locked < 0) throw new AttachError(`${cgroup.path} cannot be locked (errno ${-locked}).`)
    return work(commands, cgroup)
  } catch (error) {
    const exclusive = error instanceof BpfError && error.command === 'link' && cgroup !== undefined
      ? findExclusive(commands, cgroup.path)
      : undefined
    throw toAttachError(error, release, cgroup?.path, exclusive)
  } finally {
    cgroup?.close()
  }
}

function toAttachError (error: unknown, release: string, cgroup: string | undefined, exclusive?: string): Error {
  if (error instanceof AttachError) return error
  if (!(error instanceof BpfError)) return new AttachError((error as Error).message, undefined, { cause: error })
  const context = { release, root: isRoot(), exclusive, ...(cgroup !== undefined && { cgroup }) }
  return new AttachError(explain(error, context), error.log, { cause: error })
}

/** The program, of this cgroup or one above, that excludes others. */
function findExclusive (commands: BpfCommands, path: string): string | undefined {
  for (let above = path; above !== dirname(above); above = dirname(above)) {
    let cgroup: Cgroup | undefined
    try {
      cgroup = openCgroup(above)
      for (const { attachType } of Object.values(kinds)) {
        const { ids, flags } = commands.query(cgroup.fd, attachType)
        // BPF_F_ALLOW_OVERRIDE excludes programs beside it, not below it.
        const forbids = above === path ? (flags & BPF_F_ALLOW_MULTI) === 0 : flags === 0
        if (ids.length > 0 && forbids) return `eBPF program ${ids[0]} of ${above}`
      }
    } catch {
      // Above the root cgroup, or not permitted.
      break
    } finally {
      cgroup?.close()
    }
  }
  return undefined
}
