import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, readlinkSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { release } from 'node:os'
import { join } from 'node:path'
import { ownCgroups } from '../attach/cgroup'
import { BPFFS } from '../attach/pins'
import { type Attachment, status } from '../attach/status'
import { fdOf, listeningFdOf } from '../node/sockets'
import { IPPROTO_IP } from '../kernel/constants'
import { errnoName } from '../kernel/errno'
import { type Libc, loadLibc, openBpf } from '../kernel/libc'
import { createEndpoint } from '../kernel/sockaddr'
import { chooseSources, Senders } from '../sources/choose'
import { withoutName } from './usage-error'

/** The state of a machine, as doctor reads it. `undefined` instead of text: it cannot be read. */
export interface Machine {
  readonly platform: string
  readonly arch: string
  readonly node: string
  /** The kernel release, as of uname(1). */
  readonly release: string
  readonly koffi: Koffi
  /** `/sys/module`; `undefined` if it does not exist. */
  readonly modules: { readonly vtoa: boolean, readonly toa: boolean } | undefined
  readonly vtoaStats: string | undefined
  readonly toaStats: string | undefined
  readonly syncookies: string | undefined
  readonly fastopen: string | undefined
  /** Whether this is the host's network namespace. */
  readonly hostNetwork: boolean | undefined
  /** Whether this is the host's PID namespace. */
  readonly hostProcesses: boolean | undefined
  /** The visible cgroups v2 of this process, innermost first; empty if they cannot be read. */
  readonly cgroups: ReadonlyArray<{ readonly path: string, readonly id: string }>
  /** What `attach` attached on this machine; or why that cannot be read. */
  readonly attachments: ReadonlyArray<Attachment> | string
  /** What system calls on a loopback connection return; or why there is none. */
  readonly kernel: Kernel | string
}

/** Whether koffi can be loaded, with its error message if not; `'untried'`: no child process could be started. */
export interface Koffi {
  readonly state: 'works' | 'fails' | 'untried'
  readonly message: string
}

export interface Kernel {
  /** The name of the errno for each optname at IPPROTO_IP. */
  readonly optnames: Readonly<Record<number, string>>
  /** The name of the errno if TCP_SAVE_SYN was refused. */
  readonly saveSyn: string | undefined
  /** Whether the connection's SYN was saved. */
  readonly savedSyn: boolean
  /** Whether sock_diag found the connection's peer. */
  readonly diag: boolean
  /** The log line of `sources: 'auto'`. */
  readonly auto: string
}

const PATIENCE = 10_000
const optnames = [1345, 1346, 1347, 1348, 4096]
// The inode number of the initial PID namespace, <linux/proc_ns.h>.
const FIRST_PID_NAMESPACE = 'pid:[4026531836]'
const NET_CORE = '/proc/sys/net/core'

/** Reads the state of this machine. Never throws. */
export async function readMachine (): Promise<Machine> {
  const koffi = tryKoffi()
  return {
    platform: process.platform,
    arch: process.arch,
    node: process.versions.node,
    release: release(),
    koffi,
    modules: existsSync('/sys/module')
      ? { vtoa: existsSync('/sys/module/vtoa'), toa: existsSync('/sys/module/toa') }
      : undefined,
    vtoaStats: read('/proc/net/vtoa_stats'),
    toaStats: read('/proc/net/toa_stats'),
    syncookies: read('/proc/sys/net/ipv4/tcp_syncookies'),
    fastopen: read('/proc/sys/net/ipv4/tcp_fastopen'),
    // Only the initial network namespace has this file.
    hostNetwork: existsSync(NET_CORE) ? existsSync(`${NET_CORE}/netdev_max_backlog`) : undefined,
    hostProcesses: isFirstPidNamespace(),
    cgroups: readCgroups(),
    attachments: koffi.state === 'fails' ? koffi.message : readAttachments(),
    kernel: koffi.state === 'fails' ? koffi.message : await askKernel(loadLibc())
  }
}

function read (path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8').trim()
  } catch {
    return undefined
  }
}

function isFirstPidNamespace (): boolean | undefined {
  try {
    return readlinkSync('/proc/self/ns/pid') === FIRST_PID_NAMESPACE
  } catch {
    return undefined
  }
}

function readCgroups (): Machine['cgroups'] {
  try {
    return ownCgroups().map(({ path, id }) => ({ path, id: String(id) }))
  } catch {
    return []
  }
}

function readAttachments (): Machine['attachments'] {
  const bpf = openBpf()
  if (typeof bpf === 'string') return bpf
  try {
    return status(bpf, BPFFS)
  } catch (error) {
    return (error as Error).message
  }
}

/** Loads koffi in a child process: an abort in a native library cannot be caught. */
export function tryKoffi (): Koffi {
  try {
    const args = [...process.execArgv, join(__dirname, 'try-libc.js')]
    const { error, signal, status, stdout } = spawnSync(process.execPath, args,
      { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], timeout: PATIENCE })
    if (signal !== null) return { state: 'fails', message: `a process that loads koffi was killed by ${signal}` }
    if (error !== undefined) throw error
    if (status === 0) return { state: 'works', message: '' }
    return { state: 'fails', message: stdout || `koffi cannot be loaded (exit code ${status})` }
  } catch (error) {
    return { state: 'untried', message: `no child process could be started to load it (${nameOf(error)})` }
  }
}

async function askKernel (libc: Libc | string): Promise<Kernel | string> {
  if (typeof libc === 'string') return libc
  const senders = new Senders(libc, console.error)
  const server = createServer()
  const sockets: Socket[] = []
  try {
    const signal = AbortSignal.timeout(PATIENCE)
    await once(server.listen(0, '127.0.0.1'), 'listening')
    const saveSyn = senders.arm(listeningFdOf(server))
    const client = connect((server.address() as AddressInfo).port, '127.0.0.1')
    sockets.push(client)
    const accepted = once(server, 'connection', { signal }) as Promise<[Socket]>
    const [[socket]] = await Promise.all([accepted, once(client, 'connect')])
    sockets.push(socket)
    return { saveSyn, ...await askConnection(senders, fdOf(socket), client.localPort as number) }
  } catch (error) {
    return `no loopback connection can be opened (${nameOf(error)})`
  } finally {
    for (const socket of sockets) socket.destroy()
    server.close()
    senders.search.close()
  }
}

async function askConnection (
  { libc, syn, search }: Senders, fd: number, peerPort: number
): Promise<Omit<Kernel, 'saveSyn'>> {
  const results: Record<number, string> = {}
  for (const optname of optnames) results[optname] = errnoName(libc.getsockopt(fd, IPPROTO_IP, optname))
  const savedSyn = syn.read(fd, createEndpoint())
  const diag = await new Promise<boolean>((resolve) => {
    search.ask(fd, (peer) => { resolve(peer?.port === peerPort) })
  })
  let auto = ''
  chooseSources(libc, syn, { sources: 'auto', toa: undefined, require: false },
    (message) => { auto = withoutName(message) })
  return { optnames: results, savedSyn, diag, auto }
}

const nameOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code
