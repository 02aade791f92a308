import { spawn, type ChildProcess, type SpawnOptions } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readFileSync, readlinkSync, rmdirSync, writeFileSync } from 'node:fs'
import { constants, release } from 'node:os'
import { join } from 'node:path'
import { bpfUnavailable, loadBpf, type Bpf } from './bpf'
import { openOracle, type Oracle } from './oracle'
import { CONNECTION_LEN, decodeStamp, encodeStamp, type Stamp } from './stamp'

export { claimedBy, derivedAddress, type Segment, type Stamp } from './stamp'
export type { Claim, Oracle, OracleAgain, OracleAsk, OracleRun, OracleTally } from './oracle'

/**
 * Two kinds of cgroups: what listens in the server's is served by the stand-in for vtoa or another module, what
 * connects from a client's carries TOA. Everything goes away with `close`, or with the process.
 */
export interface Lab {
  readonly module: Module
  readonly serverCgroup: string
  /** moves this process into the server cgroup: sockets that listen from now on are served by the module */
  enterServer (): void
  client (toa?: Stamp | null): Promise<StampingClient>
  /** kills whatever still runs in the cgroups, except this process, which leaves them */
  close (): Promise<void>
}

export interface Module {
  /** as modprobe; has seen no connection made earlier. Either way of asking can be left out */
  start (played?: Played): void
  /** as rmmod */
  stop (): void
  /** makes 1348 misbehave from now on, across starts; without a fault it behaves again */
  fault (fault?: Fault): void
}

/** What is played. */
export interface Played {
  /**
   * default 'vtoa'. How each answers:
   * - vtoa: 1348, 1345 and 1347, getpeername; reads 254/8, 253/20, 252/20, 249/40, 250/8 alone and behind 254/8;
   * - dpvs: getpeername, 4096 (NAT64); reads 254/8, 254/20;
   * - ucloud: getpeername; reads 200/8, 254/8, 253/8, all IPv4;
   * - huawei: getpeername on IPv4 sockets alone; reads 254/8.
   */
  readonly as?: keyof typeof MODULES
  /** default true */
  readonly getsockopt?: boolean
  /** default true */
  readonly getpeername?: boolean
  /** vtoa: what tells the virtual server, and of which; default all. An optname that is not in the list does not exist */
  readonly virtualServer?: ReadonlyArray<keyof typeof VIRTUAL_SERVER>
}

export interface Fault {
  /** every call fails with it */
  readonly errno?: keyof typeof constants.errno
  /** sa_family of every answer */
  readonly family?: number
  /** getpeername gives every IPv4 client this port, as if another program rewrote it */
  readonly namePort?: number
  /** only so many bytes of the answer are written, still with success */
  readonly bytesWritten?: number
}

export interface RunResult { stdout: string, stderr: string, code: number | null }

export interface StampingClient {
  readonly cgroup: string
  /** for connections made from now on; null stamps nothing */
  set (toa: Stamp | null): void
  /** moves this process into the client's cgroup: its own connections are stamped from now on */
  enter (): void
  /** what is written on a connection of this process's, by the kernel's own record; undefined: nothing */
  claimOf (fd: number): { address: string, port: number | undefined } | undefined
  /** any program, its connections stamped */
  spawn (command: string, args?: readonly string[], options?: SpawnOptions): ChildProcess
  run (command: string, args?: readonly string[], options?: SpawnOptions): Promise<RunResult>
  /** a process that opens many connections and checks every answer itself */
  oracle (): Oracle
}

const PREFIX = 'fastify-real-ip'

// Both as in module.bpf.c.
const MODULES = { vtoa: 0, dpvs: 1, ucloud: 2, huawei: 3 }
const VIRTUAL_SERVER = { 1345: 1, '1347 of IPv4': 2, '1347 of IPv6': 4 }

// Holds a pipe from this process. Once that is closed, by `close` or by death of any kind, it
// ends what is left in the lab's cgroups and removes them. stderr stays open until it is done.
const KEEPER = `
trap '' HUP INT TERM
echo $$ > "$2/cgroup.procs"
read -r _
echo 1 > "$1/cgroup.kill"
tries=0
until grep -q 'populated 0' "$1/cgroup.events" || [ $tries -ge 500 ]; do
  tries=$((tries + 1))
  sleep 0.01
done
rmdir "$1"/*/ "$1" 2>/dev/null
`

const ENTER_AND_EXEC = 'echo $$ > "$0" && exec "$@"'

let labsOpened = 0
let home: string | undefined // the cgroup that this process was in before the first lab

/** undefined where the lab can run, else one sentence that says what is missing */
export function labUnavailable (): string | undefined {
  if (process.platform !== 'linux') return 'the kernel lab needs Linux'
  // before 5.18 no program could choose the errno of a getsockopt
  const [major = 0, minor = 0] = release().split('.').map(Number)
  if (major < 5 || (major === 5 && minor < 18)) return `the kernel lab needs Linux 5.18 or newer, this is ${release()}`
  if (process.getuid!() !== 0) return 'the kernel lab needs root: it loads eBPF programs'
  const mount = cgroupMount()
  if (mount === undefined) return 'the kernel lab needs cgroup2: mount -t cgroup2 none /sys/fs/cgroup'
  if (!mount.writable) return `the kernel lab needs a writable cgroup2, ${mount.path} is read-only`
  if (!existsSync(join(ownCgroup(), 'cgroup.procs'))) return `the kernel lab does not see this process's own cgroup under ${mount.path}`
  return bpfUnavailable()
}

export async function openLab (): Promise<Lab> {
  const unavailable = labUnavailable()
  if (unavailable !== undefined) throw new Error(unavailable)
  removeLeftovers()
  home ??= ownCgroup()
  const root = join(cgroupMount()!.path, `${PREFIX}.${pidNamespace()}.${process.pid}.${++labsOpened}`)
  const serverCgroup = join(root, 'server')
  mkdirSync(root)
  const keeper = spawn('/bin/sh', ['-c', KEEPER, 'keeper', root, home], { detached: true, stdio: ['pipe', 'ignore', 'inherit'] })
  const keeperEnded = once(keeper, 'exit')
  keeper.unref()
  ;(keeper.stdin as unknown as { unref (): void }).unref()
  mkdirSync(serverCgroup)

  const loaded: Bpf[] = []
  let clients = 0
  let closing: Promise<void> | undefined

  function load (source: string, cgroup: string): Bpf {
    const bpf = loadBpf(source, cgroup)
    loaded.push(bpf)
    return bpf
  }

  async function close (): Promise<void> {
    for (const bpf of loaded) bpf.close()
    if (ownCgroup().startsWith(`${root}/`)) enter(home!)
    keeper.ref()
    keeper.stdin.end()
    await keeperEnded
    if (existsSync(root)) throw new Error(`could not remove ${root}`)
  }

  let module: Module
  try {
    module = createModule(load('module.bpf.c', serverCgroup))
  } catch (error) {
    await close()
    throw error
  }

  return {
    module,
    serverCgroup,
    enterServer () { enter(serverCgroup) },
    async client (toa = {}) {
      const cgroup = join(root, `client-${++clients}`)
      mkdirSync(cgroup)
      const bpf = load('stamp.bpf.c', cgroup)
      bpf.update('stamp_map', encodeStamp(toa))
      bpf.attach()
      return createClient(bpf, cgroup, toa)
    },
    close () {
      closing ??= close()
      return closing
    }
  }
}

function createModule (bpf: Bpf): Module {
  let generation = 0
  let played: Played = {}
  let current: Fault = {}

  function configure (): void {
    const { errno, family = -1, bytesWritten = -1, namePort = 0 } = current
    const { as = 'vtoa', virtualServer = [1345, '1347 of IPv4', '1347 of IPv6'] } = played
    const errnoForced = errno === undefined ? 0 : constants.errno[errno]
    const answered = virtualServer.reduce((bits, what) => bits | VIRTUAL_SERVER[what], 0)
    bpf.update('config_map', new Uint8Array(Int32Array.of(generation, errnoForced, family, bytesWritten, MODULES[as], answered, namePort).buffer))
  }

  return {
    start (play = {}) {
      const { as = 'vtoa', getsockopt = true, getpeername = true } = played = play
      bpf.detach()
      generation++
      configure()
      bpf.attach([
        ...(getsockopt ? ['answer_getsockopt'] : []),
        ...(getpeername ? ['rename_peer4'] : []),
        ...(getpeername && as !== 'huawei' ? ['rename_peer6'] : []),
        'remember_toa'
      ])
    },
    stop () { bpf.detach() },
    fault (fault = {}) {
      current = fault
      configure()
    }
  }
}

function createClient (bpf: Bpf, cgroup: string, toa: Stamp | null): StampingClient {
  let stamp = toa

  const spawnHere: StampingClient['spawn'] = (command, args = [], options = {}) =>
    spawn('/bin/sh', ['-c', ENTER_AND_EXEC, join(cgroup, 'cgroup.procs'), command, ...args], options)

  return {
    cgroup,
    set (toa) {
      bpf.update('stamp_map', encodeStamp(toa))
      stamp = toa
    },
    enter () { enter(cgroup) },
    claimOf (fd) {
      const connection = bpf.readOfSocket('connections', fd, CONNECTION_LEN)
      return connection && decodeStamp(connection)
    },
    spawn: spawnHere,
    async run (command, args, options = {}) {
      const child = spawnHere(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options })
      const result: RunResult = { stdout: '', stderr: '', code: null }
      child.stdout?.setEncoding('utf8').on('data', (text: string) => { result.stdout += text })
      child.stderr?.setEncoding('utf8').on('data', (text: string) => { result.stderr += text })
      const [code] = await once(child, 'close') as [number | null]
      return { ...result, code }
    },
    oracle: () => openOracle(spawnHere, () => stamp)
  }
}

function enter (cgroup: string): void {
  writeFileSync(join(cgroup, 'cgroup.procs'), String(process.pid))
}

function cgroupMount (): { path: string, writable: boolean } | undefined {
  const mounts = readFileSync('/proc/mounts', 'utf8').split('\n').map(line => line.split(' '))
  const found = mounts.find(([, , type]) => type === 'cgroup2')
  return found && { path: found[1]!, writable: found[3]!.split(',').includes('rw') }
}

function ownCgroup (): string {
  const path = /^0::(.*)$/m.exec(readFileSync('/proc/self/cgroup', 'utf8'))?.[1] ?? '/'
  return join(cgroupMount()!.path, path)
}

// A pid says who owns a cgroup only inside its own namespace.
function pidNamespace (): string {
  return /\d+/.exec(readlinkSync('/proc/self/ns/pid'))![0]
}

// Only where the keeper died as well, for example at the end of a container.
function removeLeftovers (): void {
  const mount = cgroupMount()!.path
  const name = new RegExp(`^${PREFIX}\\.${pidNamespace()}\\.(\\d+)\\.\\d+$`)
  for (const entry of readdirSync(mount)) {
    const pid = name.exec(entry)?.[1]
    if (pid === undefined || existsSync(`/proc/${pid}`)) continue
    removeCgroup(join(mount, entry))
  }
}

function removeCgroup (cgroup: string): void {
  try {
    for (const entry of readdirSync(cgroup, { withFileTypes: true })) {
      if (entry.isDirectory()) rmdirSync(join(cgroup, entry.name))
    }
    rmdirSync(cgroup)
  } catch {
    // its own keeper was faster, or something still runs in there: no harm to us
  }
}
