import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync, existsSync, lstatSync, mkdirSync, openSync, readFileSync, renameSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'

/** The programs of one .bpf.c file, loaded into the kernel for one cgroup. */
export interface Bpf {
  /** by name, as in the source; all without names */
  attach (names?: readonly string[]): void
  detach (): void
  /** writes the first and only element of an array map */
  update (map: string, value: Uint8Array): void
  /** of a map of socket storage, what it has of this process's socket `fd`, `length` bytes; undefined: nothing */
  readOfSocket (map: string, fd: number, length: number): Uint8Array | undefined
  close (): void
}

interface Libbpf {
  open: (path: string, options: null) => unknown
  load: (object: unknown) => number
  nextProgram: (object: unknown, previous: unknown) => unknown
  programName: (program: unknown) => string
  attach: (program: unknown, cgroupFd: number) => unknown
  detach: (link: unknown) => number
  destroyLink: (link: unknown) => number
  mapFd: (object: unknown, name: string) => number
  updateMap: (fd: number, key: Uint8Array, value: Uint8Array, flags: number) => number
  lookUp: (fd: number, key: Uint8Array, value: Uint8Array) => number
  close: (object: unknown) => void
  probe: (programType: number, options: null) => number
}

// the same from test/ and from dist/test/
const SOURCES = join(dirname(require.resolve('fastify-real-ip/package.json')), 'test', 'lab')
const BPF_PROG_TYPE_CGROUP_SOCKOPT = 25
const HEADERS = '/usr/include'
const TARGETS: Record<string, { arch: string, headers: string }> = {
  x64: { arch: 'x86', headers: `${HEADERS}/x86_64-linux-gnu` },
  arm64: { arch: 'arm64', headers: `${HEADERS}/aarch64-linux-gnu` }
}

let libbpf: Libbpf | undefined

function openLibbpf (): Libbpf {
  if (libbpf !== undefined) return libbpf
  // required here, so that where koffi or libbpf is missing the lab can say so
  const koffi = require('koffi') as typeof import('koffi', { with: { 'resolution-mode': 'import' } })
  const library = koffi.load('libbpf.so.1')
  libbpf = {
    open: library.func('void *bpf_object__open_file(const char *path, void *options)'),
    load: library.func('int bpf_object__load(void *object)'),
    nextProgram: library.func('void *bpf_object__next_program(void *object, void *previous)'),
    programName: library.func('const char *bpf_program__name(void *program)'),
    attach: library.func('void *bpf_program__attach_cgroup(void *program, int cgroupFd)'),
    detach: library.func('int bpf_link__detach(void *link)'),
    destroyLink: library.func('int bpf_link__destroy(void *link)'),
    mapFd: library.func('int bpf_object__find_map_fd_by_name(void *object, const char *name)'),
    updateMap: library.func('int bpf_map_update_elem(int fd, const uint8_t *key, const uint8_t *value, uint64_t flags)'),
    lookUp: library.func('int bpf_map_lookup_elem(int fd, const uint8_t *key, _Out_ uint8_t *value)'),
    close: library.func('void bpf_object__close(void *object)'),
    probe: library.func('int libbpf_probe_bpf_prog_type(int programType, void *options)')
  }
  return libbpf
}

/** undefined where programs can be compiled and loaded, else what to do about it */
export function bpfUnavailable (): string | undefined {
  const target = TARGETS[process.arch]
  if (target === undefined) return `the kernel lab knows x64 and arm64, not ${process.arch}`
  try {
    execFileSync('clang', ['--version'], { stdio: 'ignore' })
    openLibbpf()
  } catch {
    return 'the kernel lab needs clang, libbpf and koffi: apt-get install clang libbpf-dev, npm install'
  }
  if (!existsSync(`${HEADERS}/bpf/bpf_tracing.h`)) return 'the kernel lab needs the headers of libbpf: apt-get install libbpf-dev'
  if (openLibbpf().probe(BPF_PROG_TYPE_CGROUP_SOCKOPT, null) !== 1) return 'the kernel lab may not load eBPF programs here (a container without CAP_BPF, or a kernel without CONFIG_CGROUP_BPF)'
  return undefined
}

/**
 * Loads and verifies, attaches nothing yet. Nothing is pinned: programs and attachments live
 * on file descriptors of this process, so the kernel takes them away however it ends.
 */
export function loadBpf (source: string, cgroup: string): Bpf {
  const lib = openLibbpf()
  const object = lib.open(compile(source), null)
  if (object === null || lib.load(object) !== 0) throw new Error(`the kernel did not take ${source}`)
  const programs = new Map<string, unknown>()
  for (let program = lib.nextProgram(object, null); program !== null; program = lib.nextProgram(object, program)) {
    programs.set(lib.programName(program), program)
  }
  let links: unknown[] = []

  return {
    attach (names = [...programs.keys()]) {
      const cgroupFd = openSync(cgroup, 'r')
      try {
        for (const name of names) {
          const link = lib.attach(programs.get(name), cgroupFd)
          if (link === null) throw new Error(`cannot attach ${name} to ${cgroup}`)
          links.push(link)
        }
      } finally {
        closeSync(cgroupFd)
      }
    },
    detach () {
      for (const link of links) {
        lib.detach(link) // at once; destroying alone may leave it to a kernel worker
        lib.destroyLink(link)
      }
      links = []
    },
    update (map, value) {
      if (lib.updateMap(lib.mapFd(object, map), new Uint8Array(4), value, 0) !== 0) throw new Error(`cannot write ${map}`)
    },
    readOfSocket (map, fd, length) {
      const value = new Uint8Array(length)
      const key = new Uint8Array(Int32Array.of(fd).buffer)
      return lib.lookUp(lib.mapFd(object, map), key, value) === 0 ? value : undefined
    },
    close () {
      this.detach()
      lib.close(object)
    }
  }
}

function compile (source: string): string {
  const path = join(SOURCES, source)
  const { arch, headers } = TARGETS[process.arch]!
  const flags = ['-target', 'bpf', '-O2', '-g', '-Wall', '-Werror', `-D__TARGET_ARCH_${arch}`, '-idirafter', headers]
  const hash = createHash('sha256').update(flags.join(' ')).update(readFileSync(path)).digest('hex').slice(0, 16)
  const object = join(cacheFolder(), `${source}.${hash}.o`)
  if (!existsSync(object)) {
    const unfinished = `${object}.${process.pid}`
    execFileSync('clang', [...flags, '-c', path, '-o', unfinished], { stdio: ['ignore', 'inherit', 'inherit'] })
    renameSync(unfinished, object)
  }
  return object
}

// Root loads what lies here into the kernel, so nobody else may write to it.
function cacheFolder (): string {
  const folder = join(tmpdir(), `fastify-real-ip-lab-${process.getuid!()}`)
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  const { uid, mode } = lstatSync(folder)
  if (uid !== process.getuid!() || (mode & 0o170777) !== 0o040700) throw new Error(`${folder} belongs to someone else: remove it`)
  return folder
}
