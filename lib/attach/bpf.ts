import type { Bpf, Pointer } from '../kernel/libc'
import type { MapDefinition } from './definitions'

// <linux/bpf.h>
const BPF_MAP_CREATE = 0
const BPF_MAP_LOOKUP_ELEM = 1
const BPF_MAP_UPDATE_ELEM = 2
const BPF_PROG_LOAD = 5
const BPF_OBJ_PIN = 6
const BPF_OBJ_GET = 7
const BPF_PROG_GET_FD_BY_ID = 13
const BPF_MAP_GET_FD_BY_ID = 14
const BPF_OBJ_GET_INFO_BY_FD = 15
const BPF_PROG_QUERY = 16
const BPF_BTF_LOAD = 18
const BPF_MAP_FREEZE = 22
const BPF_LINK_CREATE = 28
const BPF_LINK_UPDATE = 29
const BPF_LINK_DETACH = 34

export type Command =
  'map' | 'update' | 'lookup' | 'load' | 'pin' | 'get' | 'id' | 'info' | 'query' | 'btf' | 'freeze' |
  'link' | 'replace' | 'detach'

const ATTR = 128
const NAME = 16
// Loading fails if the log does not fit.
const LOG = 1 << 23
const PROGRAMS_MAX = 64
const MAPS_MAX = 16

type Field = readonly [offset: number, value: number | Uint8Array]

/** A failed bpf(2) command. */
export class BpfError extends Error {
  constructor (readonly command: Command, readonly errno: number, readonly subject: string, readonly log?: string) {
    super(`bpf(2) ${command} of ${subject}: errno ${errno}`)
  }
}

export interface LinkInfo {
  readonly program: number
  /** The cgroup's id; 0 if the link is detached, also because its cgroup was removed. */
  readonly cgroup: bigint
}

export interface Load {
  readonly type: number
  readonly attachType: number
  readonly name: string
  readonly instructions: Uint8Array
  readonly verbose?: boolean
}

/** The commands of bpf(2). File descriptors are numbers. All throw BpfError. */
export class BpfCommands {
  readonly #bpf: Bpf

  constructor (bpf: Bpf) {
    this.#bpf = bpf
  }

  #call (command: Command, number: number, subject: string, fields: Field[], pointers?: Pointer[]): number {
    return this.#run(command, number, subject, encode(fields), pointers)
  }

  #run (command: Command, number: number, subject: string, attr: Uint8Array, pointers?: Pointer[]): number {
    const result = this.#bpf.bpf(number, attr, pointers)
    if (result < 0) throw new BpfError(command, -result, subject)
    return result
  }

  createMap (name: string, definition: MapDefinition, btf?: number): number {
    const { type, keySize, valueSize, maxEntries, flags } = definition
    const typed: Field[] = btf === undefined ? [] : [[48, btf], [52, KEY_TYPE], [56, VALUE_TYPE]]
    return this.#call('map', BPF_MAP_CREATE, name, [
      [0, type], [4, keySize], [8, valueSize], [12, maxEntries], [16, flags], [28, nameBytes(name)], ...typed
    ])
  }

  update (map: number, key: Uint8Array, value: Uint8Array): void {
    this.#call('update', BPF_MAP_UPDATE_ELEM, 'a map', [[0, map]], [[8, key], [16, value]])
  }

  lookup (map: number, key: Uint8Array, value: Uint8Array): void {
    this.#call('lookup', BPF_MAP_LOOKUP_ELEM, 'a map', [[0, map]], [[8, key], [16, value]])
  }

  freeze (map: number): void {
    this.#call('freeze', BPF_MAP_FREEZE, 'a map', [[0, map]])
  }

  /** BTF for a map with values of `size` bytes: socket storage maps require it. */
  loadTypes (size: number): number {
    const bytes = encodeBtf(size)
    return this.#call('btf', BPF_BTF_LOAD, 'types', [[16, bytes.length]], [[0, bytes]])
  }

  /** Returns the verifier's log if `verbose`; BpfError has it if the program was refused. */
  load (load: Load): { fd: number, log: string } {
    const { type, attachType, name, instructions, verbose = false } = load
    const fields: Field[] = [[0, type], [4, instructions.length / 8], [48, nameBytes(name)], [68, attachType]]
    const pointers: Pointer[] = [[8, instructions], [16, Buffer.from('MIT\0')]]
    let errno = 0
    if (!verbose) {
      const fd = this.#bpf.bpf(BPF_PROG_LOAD, encode(fields), pointers)
      if (fd >= 0) return { fd, log: '' }
      errno = -fd
    }
    const log = Buffer.alloc(LOG)
    const fd = this.#bpf.bpf(BPF_PROG_LOAD, encode([...fields, [24, 1], [28, LOG]]), [...pointers, [32, log]])
    const text = log.toString('latin1', 0, log.indexOf(0)).trimEnd()
    if (fd >= 0) return { fd, log: text }
    throw new BpfError('load', errno || -fd, name, text)
  }

  pin (fd: number, path: string): void {
    this.#call('pin', BPF_OBJ_PIN, path, [[8, fd]], [[0, Buffer.from(`${path}\0`)]])
  }

  /** Opens the pinned object. */
  open (path: string): number {
    return this.#call('get', BPF_OBJ_GET, path, [], [[0, Buffer.from(`${path}\0`)]])
  }

  programById (id: number): number {
    return this.#call('id', BPF_PROG_GET_FD_BY_ID, `program ${id}`, [[0, id]])
  }

  mapById (id: number): number {
    return this.#call('id', BPF_MAP_GET_FD_BY_ID, `map ${id}`, [[0, id]])
  }

  linkInfo (fd: number): LinkInfo {
    const info = this.#info(fd, 64)
    return { program: info.getUint32(8, true), cgroup: info.getBigUint64(16, true) }
  }

  mapInfo (fd: number): MapDefinition & { readonly name: string } {
    const info = this.#info(fd, 64)
    const [type, keySize, valueSize, maxEntries, flags] = [0, 8, 12, 16, 20].map((at) => info.getUint32(at, true)) as
      [number, number, number, number, number]
    return { type, keySize, valueSize, maxEntries, flags, name: nameAt(info, 24) }
  }

  programInfo (fd: number): { readonly name: string, readonly maps: number[] } {
    const maps = new Uint32Array(MAPS_MAX)
    const info = this.#info(fd, 160, [52, MAPS_MAX], [56, new Uint8Array(maps.buffer)])
    return { name: nameAt(info, 64), maps: [...maps.subarray(0, info.getUint32(52, true))] }
  }

  #info (fd: number, size: number, field?: Field, pointer?: Pointer): DataView {
    const info = encode(field === undefined ? [] : [field], size)
    this.#call('info', BPF_OBJ_GET_INFO_BY_FD, `descriptor ${fd}`, [[0, fd], [4, size]],
      [[8, info, pointer === undefined ? [] : [pointer]]])
    return new DataView(info.buffer)
  }

  /** The programs attached to the cgroup itself, and whether one of them excludes others. */
  query (cgroup: number, attachType: number): { readonly ids: number[], readonly flags: number } {
    const ids = new Uint32Array(PROGRAMS_MAX)
    const attr = encode([[0, cgroup], [4, attachType], [24, PROGRAMS_MAX]])
    this.#run('query', BPF_PROG_QUERY, 'a cgroup', attr, [[16, new Uint8Array(ids.buffer)]])
    const view = new DataView(attr.buffer)
    return { ids: [...ids.subarray(0, view.getUint32(24, true))], flags: view.getUint32(12, true) }
  }

  link (program: number, cgroup: number, attachType: number): number {
    const attr: Array<[number, number]> = [[0, program], [4, cgroup], [8, attachType]]
    return this.#call('link', BPF_LINK_CREATE, `attach type ${attachType}`, attr)
  }

  /** Atomic: every packet and call sees exactly one program. */
  replace (link: number, program: number): void {
    this.#call('replace', BPF_LINK_UPDATE, `link ${link}`, [[0, link], [4, program]])
  }

  detach (link: number): void {
    this.#call('detach', BPF_LINK_DETACH, `link ${link}`, [[0, link]])
  }
}

function encode (fields: ReadonlyArray<Field>, size = ATTR): Uint8Array {
  const bytes = new Uint8Array(size)
  const view = new DataView(bytes.buffer)
  for (const [offset, value] of fields) {
    if (typeof value === 'number') view.setUint32(offset, value, true)
    else bytes.set(value, offset)
  }
  return bytes
}

// The kernel allows 15 characters: letters, digits, '_' and '.'.
function nameBytes (name: string): Uint8Array {
  return Buffer.from(name.slice(0, NAME - 1))
}

function nameAt (info: DataView, at: number): string {
  const bytes = Buffer.from(info.buffer, at, NAME)
  return bytes.toString('latin1', 0, Math.max(0, bytes.indexOf(0)))
}

// <linux/btf.h>: a header of 24 bytes, the types, and the strings.
const BTF_MAGIC = 0xeb9f
const BTF_HEADER = 24
const BTF_KIND_INT = 1
const BTF_KIND_ARRAY = 3
const KEY_TYPE = 1
const VALUE_TYPE = 3

/** An int, a byte, and an array of `size` bytes. */
function encodeBtf (size: number): Uint8Array {
  const types = Uint32Array.of(
    1, BTF_KIND_INT << 24, 4, 1 << 24 | 32,
    1, BTF_KIND_INT << 24, 1, 8,
    0, BTF_KIND_ARRAY << 24, 0, 2, KEY_TYPE, size
  )
  const strings = Buffer.from('\0int\0')
  return Buffer.concat([
    new Uint8Array(Uint16Array.of(BTF_MAGIC, 1).buffer),
    new Uint8Array(Uint32Array.of(BTF_HEADER, 0, types.byteLength, types.byteLength, strings.length).buffer),
    new Uint8Array(types.buffer),
    strings
  ])
}
