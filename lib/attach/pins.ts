import { closeSync, lstatSync, readdirSync, rmdirSync, unlinkSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { BpfCommands, BpfError } from './bpf'
import type { ProgramName } from './programs'

/** A failure; the message is meant for the user and contains the fix. `log`: the verifier's, if any. */
export class AttachError extends Error {
  constructor (message: string, readonly log?: string, options?: ErrorOptions) {
    super(message, options)
  }
}

/** Program and attach types, from <linux/bpf.h>. */
export const kinds: Readonly<Record<ProgramName, { readonly type: number, readonly attachType: number }>> = {
  sockops: { type: 13, attachType: 3 },
  getsockopt: { type: 25, attachType: 21 },
  getpeername4: { type: 18, attachType: 29 },
  getpeername6: { type: 18, attachType: 30 }
}

export const ALWAYS = ['sockops', 'getsockopt'] as const satisfies ProgramName[]
export const NAMING = ['getpeername4', 'getpeername6'] as const satisfies ProgramName[]

export const isRoot = (): boolean => process.geteuid?.() === 0

/** Where a BPF file system is usually mounted. */
export const BPFFS = '/sys/fs/bpf'

/** The directory of a cgroup's pins, or of all pins. The kernel allows no dots in names. */
export const pinsOf = (bpffs: string, id: bigint | string = ''): string => join(bpffs, 'fastify-real-ip', String(id))

/** Returns `undefined` if nothing is pinned there. */
export function openPin (commands: BpfCommands, path: string): number | undefined {
  try {
    return commands.open(path)
  } catch (error) {
    if (error instanceof BpfError && error.errno === constants.errno.ENOENT) return undefined
    throw error
  }
}

/** Throws AttachError if others may write to a directory of pins: in a BPF file system anyone may create one. */
export function checkFolder (folder: string): void {
  const { uid, mode } = lstatSync(folder)
  if (uid !== process.geteuid?.() || (mode & 0o170022) !== 0o040000) {
    throw new AttachError(`${folder} belongs to another user, or others may write to it: ` +
      `${isRoot() ? 'remove it' : 'run this as root'}.`)
  }
}

/** The names in a directory of pins; `undefined` if there is none. Throws AttachError. */
export function readFolder (folder: string): string[] | undefined {
  try {
    return readdirSync(folder)
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT') return undefined
    throw new AttachError(`${folder} cannot be read (${code}): run this as root.`)
  }
}

export function removePins (commands: BpfCommands, bpffs: string, id: bigint | string, cgroup: string): void {
  const folder = pinsOf(bpffs, id)
  const names = readFolder(folder)
  if (names === undefined) throw new AttachError(`Nothing is attached to ${cgroup}; status lists all attachments.`)
  // A link would lead to files elsewhere.
  checkFolder(pinsOf(bpffs))
  checkFolder(folder)
  // Remove getsockopt first: 1348 then fails with ENOPROTOOPT, and never with a wrong "no TOA".
  const links = [...ALWAYS, ...NAMING].reverse().filter((name) => names.includes(name))
  for (const name of links) removeLink(commands, join(folder, name))
  for (const name of names.filter((name) => !links.includes(name as ProgramName))) unlinkSync(join(folder, name))
  rmdirSync(folder)
}

/** Detaches at once: the kernel may otherwise delay it after the last reference is gone. */
export function removeLink (commands: BpfCommands, path: string): void {
  const link = openPin(commands, path)
  if (link === undefined) return
  attempt(() => { commands.detach(link) })
  closeSync(link)
  unlinkSync(path)
}

export function attempt (work: () => void): void {
  try {
    work()
  } catch {}
}
