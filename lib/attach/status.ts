import { closeSync, readFileSync } from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import type { Bpf } from '../kernel/libc'
import { BpfCommands, BpfError } from './bpf'
import { cgroupId, checkBpffs } from './cgroup'
import { decodeDescription, type Description } from './config'
import { explain } from './explain'
import { ALWAYS, AttachError, checkFolder, isRoot, NAMING, openPin, pinsOf, readFolder } from './pins'
import { maps, type ProgramName } from './programs'

/** In the order of toa.bpf.c. */
const counterNames = ['claims', 'none', 'malformed', 'strangers', 'unstored'] as const

/** Handshakes since the first attach, by outcome. */
export type Counters = Readonly<Record<typeof counterNames[number], number>>

export interface Attachment {
  /** The cgroup's inode number. */
  readonly id: string
  /**
   * `'incomplete'`: an attach was killed; `'detached'`: another process detached a program; `'gone'`: the cgroup was
   * removed.
   */
  readonly state: 'attached' | 'incomplete' | 'detached' | 'gone'
  /** `undefined` if no program is left, or another version wrote it. */
  readonly description: Description | undefined
  readonly counters: Counters | undefined
  /** Program ids, as bpftool prints them. */
  readonly programs: Readonly<Partial<Record<ProgramName, number>>>
}

/** Lists all attachments. Throws AttachError. */
export function status (bpf: Bpf, bpffs: string): Attachment[] {
  try {
    checkBpffs(bpffs)
    const commands = new BpfCommands(bpf)
    const ids = readFolder(pinsOf(bpffs))
    if (ids === undefined) return []
    checkFolder(pinsOf(bpffs))
    return ids.filter((id) => /^\d+$/.test(id)).map((id) => read(commands, bpffs, id))
  } catch (error) {
    if (!(error instanceof BpfError)) throw new AttachError((error as Error).message, undefined, { cause: error })
    throw new AttachError(explain(error, { release: release(), root: isRoot() }), undefined, { cause: error })
  }
}

function read (commands: BpfCommands, bpffs: string, id: string): Attachment {
  const folder = pinsOf(bpffs, id)
  const found: Partial<Record<ProgramName, number>> = {}
  let detached = false
  for (const name of [...ALWAYS, ...NAMING]) {
    const link = withPin(commands, join(folder, name), (fd) => commands.linkInfo(fd))
    if (link === undefined) continue
    found[name] = link.program
    detached ||= link.cgroup === 0n
  }
  const [program] = Object.values(found)
  const description = program === undefined ? undefined : describe(commands, program)
  const counters = withPin(commands, join(folder, 'counters'), (fd) => count(commands, fd))
  return { id, state: stateOf(id, description, detached, found), description, counters, programs: found }
}

function stateOf (
  id: string, description: Description | undefined, detached: boolean, found: Attachment['programs']
): Attachment['state'] {
  const wanted = description?.getpeername === true ? [...ALWAYS, ...NAMING] : ALWAYS
  if (detached) return description !== undefined && String(cgroupId(description.cgroup)) === id ? 'detached' : 'gone'
  return wanted.every((name) => found[name] !== undefined) ? 'attached' : 'incomplete'
}

/** Reads the description from the running program itself, not from a pin that a later attach may have replaced. */
function describe (commands: BpfCommands, program: number): Description | undefined {
  const fd = commands.programById(program)
  try {
    for (const id of commands.programInfo(fd).maps) {
      const map = commands.mapById(id)
      try {
        const { name, valueSize } = commands.mapInfo(map)
        if (name !== 'config') continue
        const value = new Uint8Array(valueSize)
        commands.lookup(map, new Uint8Array(4), value)
        return decodeDescription(value)
      } finally {
        closeSync(map)
      }
    }
    return undefined
  } finally {
    closeSync(fd)
  }
}

function count (commands: BpfCommands, map: number): Counters | undefined {
  const info = commands.mapInfo(map)
  if (info.type !== maps.counters.type || info.maxEntries !== counterNames.length) return undefined
  const counters = counterNames.map((name, i) => {
    const value = new BigUint64Array(possibleCpus())
    commands.lookup(map, new Uint8Array(Uint32Array.of(i).buffer), new Uint8Array(value.buffer))
    return [name, Number(value.reduce((sum, of) => sum + of, 0n))]
  })
  return Object.fromEntries(counters)
}

/** Per-CPU maps have a value for each possible CPU, online or not. */
function possibleCpus (): number {
  return readFileSync('/sys/devices/system/cpu/possible', 'utf8').trim().split(',').reduce((sum, range) => {
    const [first, last = first] = range.split('-').map(Number) as [number, number?]
    return sum + last - first + 1
  }, 0)
}

function withPin<T> (commands: BpfCommands, path: string, use: (fd: number) => T): T | undefined {
  const fd = openPin(commands, path)
  if (fd === undefined) return undefined
  try {
    return use(fd)
  } finally {
    closeSync(fd)
  }
}
