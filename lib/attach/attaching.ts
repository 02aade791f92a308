import { closeSync, mkdirSync, rmdirSync, unlinkSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { BpfCommands, BpfError } from './bpf'
import type { Cgroup } from './cgroup'
import { configMap, type Description, encodeConfig, encodePeers, linkProgram, setRetval, type Settings } from './config'
import { ALWAYS, AttachError, attempt, checkFolder, kinds, NAMING, openPin, pinsOf, removeLink } from './pins'
import { type MapName, maps, programs, type ProgramName } from './programs'

export interface AttachRequest extends Settings {
  readonly cgroup: string
  readonly bpffs: string
  readonly version: string
  readonly verbose: boolean
}

export interface Attached {
  readonly cgroup: string
  readonly id: string
  /** Whether it replaced the programs of an earlier `attach`. */
  readonly replaced: boolean
  /** Whether it is the root cgroup. */
  readonly isRoot: boolean
  readonly log: string
}

const KEPT = ['claims', 'counters'] as const satisfies MapName[]
const KEY = new Uint8Array(4)

/** One attach, to a locked cgroup. */
export class Attaching {
  readonly #commands: BpfCommands
  readonly #cgroup: Cgroup
  readonly #request: AttachRequest
  readonly #folder: string
  readonly #open: number[] = []
  readonly #undo: Array<() => void> = []
  #log = ''
  #replaced = false

  constructor (commands: BpfCommands, cgroup: Cgroup, request: AttachRequest) {
    this.#commands = commands
    this.#cgroup = cgroup
    this.#request = request
    this.#folder = pinsOf(request.bpffs, cgroup.id)
  }

  run (): Attached {
    try {
      this.#makeFolder()
      const fds = { ...this.#keptMaps(), ...this.#newMaps() }
      const wanted = this.#request.getpeername ? [...ALWAYS, ...NAMING] : ALWAYS
      // All programs pass the verifier before the first is attached.
      const loaded = wanted.map((name) => [name, this.#load(name, linkProgram(name, fds))] as const)
      // sockops first: once 1348 answers, every new connection is covered.
      for (const [name, program] of loaded) this.#attach(name, program)
      if (!this.#request.getpeername) for (const name of NAMING) removeLink(this.#commands, join(this.#folder, name))
      const { path, id, isRoot } = this.#cgroup
      return { cgroup: path, id: String(id), replaced: this.#replaced, isRoot, log: this.#log }
    } catch (error) {
      for (const undo of this.#undo.reverse()) attempt(undo)
      throw error
    } finally {
      for (const fd of this.#open) closeSync(fd)
    }
  }

  #makeFolder (): void {
    const { bpffs } = this.#request
    for (const folder of [pinsOf(bpffs), this.#folder]) {
      try {
        mkdirSync(folder, { mode: 0o700 })
        if (folder === this.#folder) this.#undo.push(() => { rmdirSync(folder) })
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException
        if (code !== 'EEXIST') throw new AttachError(`${folder} cannot be created (${code}): run this as root.`)
        checkFolder(folder)
      }
    }
  }

  /** Claims of live connections and counters survive a replacement. */
  #keptMaps (): Record<typeof KEPT[number], number> {
    const fds = KEPT.map((name) => {
      const path = join(this.#folder, name)
      const fd = this.#tryOpen(path)
      if (fd === undefined) return [name, this.#createPinned(name, path)]
      const { type, keySize, valueSize } = this.#commands.mapInfo(fd)
      const wanted = maps[name]
      if (type !== wanted.type || keySize !== wanted.keySize || valueSize !== wanted.valueSize) {
        throw new AttachError(`${path} was created by another version of this program: detach first, with that ` +
          'version or this one.')
      }
      return [name, fd]
    })
    return Object.fromEntries(fds)
  }

  #createPinned (name: typeof KEPT[number], path: string): number {
    const types = name === 'claims' ? this.#keep(this.#commands.loadTypes(maps.claims.valueSize)) : undefined
    const fd = this.#keep(this.#commands.createMap(name, maps[name], types))
    this.#commands.pin(fd, path)
    this.#undo.push(() => { unlinkSync(path) })
    return fd
  }

  #newMaps (): Record<'peers' | 'config', number> {
    const { trustedPeers, formats, getpeername, version } = this.#request
    const keys = encodePeers(trustedPeers)
    const peers = this.#keep(this.#commands.createMap('peers', { ...maps.peers, maxEntries: Math.max(1, keys.length) }))
    for (const key of keys) this.#commands.update(peers, key, KEY)

    const description: Description =
      { version, cgroup: this.#cgroup.path, attached: new Date().toISOString(), trustedPeers, formats, getpeername }
    const bytes = encodeConfig(this.#choosesErrno(), this.#request, description)
    const config = this.#keep(this.#commands.createMap('config', configMap(bytes.length)))
    this.#commands.update(config, KEY, bytes)
    this.#commands.freeze(config)
    return { peers, config }
  }

  #choosesErrno (): boolean {
    try {
      closeSync(this.#commands.load({ ...kinds.getsockopt, name: 'toa_probe', instructions: setRetval }).fd)
      return true
    } catch (error) {
      // The verifier does not know the function.
      if (error instanceof BpfError && error.errno === constants.errno.EINVAL) return false
      throw error
    }
  }

  #load (name: ProgramName, instructions: Buffer): number {
    const { fd, log } = this.#commands.load({
      ...kinds[name],
      name: programs[name].name,
      instructions,
      verbose: this.#request.verbose
    })
    if (log !== '') this.#log += `${programs[name].name}:\n${log}\n`
    return this.#keep(fd)
  }

  #attach (name: ProgramName, program: number): void {
    const path = join(this.#folder, name)
    const link = this.#tryOpen(path)
    if (link !== undefined) {
      const info = this.#commands.linkInfo(link)
      if (info.cgroup === this.#cgroup.id) {
        this.#replace(link, info.program, program)
        return
      }
      // Another process detached it.
      unlinkSync(path)
    }
    const created = this.#keep(this.#commands.link(program, this.#cgroup.fd, kinds[name].attachType))
    this.#commands.pin(created, path)
    this.#undo.push(() => { removeLink(this.#commands, path) })
  }

  #replace (link: number, replaced: number, program: number): void {
    let before: number | undefined
    attempt(() => { before = this.#keep(this.#commands.programById(replaced)) })
    this.#commands.replace(link, program)
    this.#replaced = true
    const old = before
    if (old !== undefined) this.#undo.push(() => { this.#commands.replace(link, old) })
  }

  #tryOpen (path: string): number | undefined {
    const fd = openPin(this.#commands, path)
    return fd === undefined ? undefined : this.#keep(fd)
  }

  #keep (fd: number): number {
    this.#open.push(fd)
    return fd
  }
}
