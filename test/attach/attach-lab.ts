import { spawnSync } from 'node:child_process'
import { closeSync, existsSync, mkdirSync, openSync, readdirSync, readlinkSync, rmdirSync, statSync, writeFileSync } from 'node:fs'
import { connect as connectSocket, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { once } from 'node:events'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { documentFormats } from '../../lib/attach/config'
import type { Attached, AttachRequest } from '../../lib/attach/attaching'
import { ownCgroups } from '../../lib/attach/cgroup'
import { attach, detach } from '../../lib/attach/companion'
import { pinsOf } from '../../lib/attach/pins'
import { status, type Attachment } from '../../lib/attach/status'
import { type Bpf, openBpf } from '../../lib/kernel/libc'
import { ask1348 } from './ask'
import { derivedAddress, labUnavailable, openLab, type Lab, type Stamp, type StampingClient } from '../lab/lab'
import { insideNamespace, namespaceCommand } from '../player/namespace'

export { ask1348 }

export const bpffs = '/sys/fs/bpf'
const MARK = 'FASTIFY_REAL_IP_MOUNTS'

// Pins in a BPF file system of its own go away with the last process of the mount namespace.
const MOUNT = `mount -t bpf bpf ${bpffs} || exit 125; export ${MARK}="$(readlink /proc/self/ns/mnt)"; exec "$@"`

export interface AttachLab {
  readonly lab: Lab
  readonly bpf: Bpf
  /** The lab's server cgroup, which this process is in. */
  readonly cgroup: string
  attach (request?: Partial<AttachRequest>): Attached
  detach (cgroup?: string): void
  status (): Attachment[]
  /** Of the lab's server cgroup. */
  attachment (): Attachment | undefined
  /** Another cgroup, removed with the test. */
  newCgroup (t: Test, parent?: string): string
}

/**
 * Runs tests of a file in a mount namespace with a BPF file system of its own, and with `network` in a network namespace
 * with the player's veth pair. Where that cannot be had they are skipped; unless FASTIFY_REAL_IP_LAB is `required`.
 */
export function inAttachLab (
  file: string, tests: Record<string, (t: Test, lab: AttachLab) => Promise<void>>, { network = false, timeout = 120_000 } = {}
): void {
  const missing = attachUnavailable()
  if (missing !== undefined) {
    if (process.env.FASTIFY_REAL_IP_LAB === 'required') t.fail(missing)
    else t.plan(0, missing)
    return
  }
  t.setTimeout(timeout * 3)
  if (process.env[MARK] !== readlinkSync('/proc/self/ns/mnt')) {
    const program = [process.execPath, file, ...process.argv.slice(2)]
    const inner = network ? namespaceCommand(file, process.argv.slice(2)) : program
    const [command, ...args] = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', MOUNT, 'sh', ...inner] as [string, ...string[]]
    void t.spawn(command, args, { diagnostic: false, timeout: timeout * 3 }, 'in a mount namespace')
    return
  }
  if (network && !insideNamespace()) throw new Error('not in the network namespace')
  for (const [name, test] of Object.entries(tests)) {
    t.test(name, { timeout }, async (t) => {
      const lab = await openLab()
      t.teardown(() => lab.close())
      lab.enterServer()
      const attachLab = createAttachLab(lab)
      t.teardown(() => {
        for (const { id } of attachLab.status()) detach(attachLab.bpf, { id }, bpffs)
      })
      await test(t, attachLab)
    })
  }
}

function attachUnavailable (): string | undefined {
  const missing = labUnavailable()
  if (missing !== undefined) return missing
  const { status } = spawnSync('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', MOUNT, 'sh', 'true'])
  return status === 0 ? undefined : `attach needs a mount namespace with a BPF file system at ${bpffs}`
}

function createAttachLab (lab: Lab): AttachLab {
  const bpf = openBpf() as Bpf
  const cgroup = lab.serverCgroup
  let cgroups = 0
  return {
    lab,
    bpf,
    cgroup,
    attach: (request = {}) => attachWith(bpf, cgroup, request),
    detach: (from = cgroup) => { detach(bpf, { cgroup: from }, bpffs) },
    status: () => status(bpf, bpffs),
    attachment: () => status(bpf, bpffs).find(({ id }) => id === String(statSync(cgroup, { bigint: true }).ino)),
    newCgroup (t, parent = join(cgroup, '..')) {
      const path = join(parent, `of-test-${++cgroups}`)
      mkdirSync(path)
      t.teardown(() => { if (existsSync(path)) rmdirSync(path) })
      return path
    }
  }
}

export async function listen (t: Test, host = '127.0.0.1'): Promise<Server & { port: number }> {
  const server = createServer()
  server.listen(0, host)
  await once(server, 'listening')
  t.teardown(async () => {
    server.close()
    await once(server, 'close')
  })
  return Object.assign(server, { port: (server.address() as AddressInfo).port })
}

export function attachWith (bpf: Bpf, cgroup: string, request: Partial<AttachRequest> = {}, release?: string): Attached {
  return attach(bpf, {
    cgroup, bpffs, version: 'test', verbose: false, trustedPeers: 'any', formats: documentFormats, getpeername: false, ...request
  }, release)
}

export function thrownBy (work: () => unknown): Error & { readonly log?: string } {
  try {
    work()
  } catch (error) {
    return error as Error
  }
  throw new Error('nothing was thrown')
}

/** The server's end of the next connection, destroyed with the test. */
export async function accept (t: Test, server: Server): Promise<Socket> {
  const [socket] = await once(server, 'connection') as [Socket]
  socket.on('error', () => {})
  t.teardown(() => { socket.destroy() })
  return socket
}

/** A connection of this process that `client` stamps, to `server`; its server's end. This process is in the client's cgroup then. */
export async function visit (t: Test, client: StampingClient, server: Server & { port: number }, host = '127.0.0.1'): Promise<Socket & { clientPort: number }> {
  const accepted = accept(t, server)
  client.enter()
  const socket = connectSocket(server.port, host).on('error', () => {})
  t.teardown(() => { socket.destroy() })
  await once(socket, 'connect')
  return Object.assign(await accepted, { clientPort: socket.localPort as number })
}

/** The same, to a server of its own in the cgroup that this process is in, and is in again. */
export async function connect (
  t: Test, client: StampingClient, stamp: Stamp | null, host = '127.0.0.1', at = host
): Promise<Socket & { clientPort: number }> {
  const here = ownCgroup()
  const server = await listen(t, at)
  client.set(stamp)
  try {
    return await visit(t, client, server, host)
  } finally {
    writeFileSync(join(here, 'cgroup.procs'), String(process.pid))
  }
}

const ownCgroup = (): string => ownCgroups()[0]?.path as string

const clients = new WeakMap<Lab, Promise<StampingClient>>()

/** A connection made now is answered with what its client claims. */
export async function works (t: Test, { lab }: AttachLab, what: string): Promise<void> {
  const made = clients.get(lab) ?? lab.client()
  clients.set(lab, made)
  const socket = await connect(t, await made, {})
  t.equal(ask1348(socket), `${derivedAddress(socket.clientPort)} ${socket.clientPort}`, what)
  socket.destroy()
}

export const idOf = (cgroup: string): string => String(statSync(cgroup, { bigint: true }).ino)

/** The ids of all cgroups that have pins. */
export const pinned = (): string[] => existsSync(pinsOf(bpffs)) ? readdirSync(pinsOf(bpffs)) : []

/** A file descriptor, closed with the test. */
export function openForTest (t: Test, path: string): number {
  const fd = openSync(path, 'r')
  t.teardown(() => { closeSync(fd) })
  return fd
}
