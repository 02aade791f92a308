// The long form on other kernels, under emulation: node dist/test/attach/kernels.js [--connections N] PACKAGE.deb...
// Each package is one of Debian's linux-image-*-cloud-amd64. Needs qemu-system-x86, busybox-static, cpio, and the lab.

import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { loadBpf } from '../lab/bpf'

const project = dirname(require.resolve('fastify-real-ip/package.json'))
// '@koromix' has koffi's binaries; no other dependency has dependencies of its own.
const { dependencies } = require('fastify-real-ip/package.json') as { dependencies: Record<string, string> }
const MODULES = [...Object.keys(dependencies), '@koromix']
const BOOT_WITHIN = 1_800_000

const init = (connections: string) => `#!/bin/sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t cgroup2 cgroup2 /sys/fs/cgroup
/bin/busybox mount -t bpf bpf /sys/fs/bpf
/bin/busybox ip link set lo up
export PATH=/bin
cd /project && /bin/node dist/test/attach/guest.js ${connections}
/bin/busybox poweroff -f
`

async function main (): Promise<void> {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { connections: { type: 'string', default: '200' } } })
  if (positionals.length === 0) throw new Error('usage: node dist/test/attach/kernels.js [--connections N] PACKAGE.deb...')
  // Compiles it where clang is; the guest finds it in the same place.
  loadBpf('stamp.bpf.c', '/').close()
  const folder = mkdtempSync(join(tmpdir(), 'fastify-real-ip-kernels-'))
  try {
    const initrd = makeInitrd(folder, values.connections)
    for (const [i, path] of positionals.entries()) {
      const unpacked = join(folder, String(i))
      execFileSync('dpkg-deb', ['-x', path, unpacked])
      const image = readdirSync(join(unpacked, 'boot')).find((name) => name.startsWith('vmlinuz')) as string
      console.log(`${basename(path)}:`)
      if (!await boot(join(unpacked, 'boot', image), initrd)) process.exitCode = 1
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

function makeInitrd (folder: string, connections: string): string {
  const root = join(folder, 'root')
  const copy = (from: string, to = from) => { cpSync(realpathSync(from), join(root, to), { recursive: true, dereference: true }) }
  for (const empty of ['proc', 'sys', 'dev', 'tmp', 'bin', 'usr/include/bpf', 'project/node_modules/@fastify']) mkdirSync(join(root, empty), { recursive: true })
  copy('/bin/busybox')
  execFileSync('ln', ['-s', 'busybox', join(root, 'bin/sh')])
  copy(process.execPath, '/bin/node')
  for (const library of [...librariesOf(process.execPath), '/usr/lib/x86_64-linux-gnu/libbpf.so.1', ...librariesOf('/usr/lib/x86_64-linux-gnu/libbpf.so.1')]) copy(library)
  for (const part of ['dist', 'package.json']) copy(join(project, part), join('/project', part))
  for (const name of MODULES) copy(join(project, 'node_modules', name), join('/project/node_modules', name))
  copy(join(project, 'test/lab'), '/project/test/lab')
  copy(join(tmpdir(), `fastify-real-ip-lab-${process.getuid!()}`))
  chmodSync(join(root, tmpdir(), `fastify-real-ip-lab-${process.getuid!()}`), 0o700)
  writeFileSync(join(root, 'init'), init(connections), { mode: 0o755 })
  const initrd = join(folder, 'initrd')
  execFileSync('sh', ['-c', `cd "${root}" && find . | cpio --quiet -o -H newc -R 0:0 > "${initrd}"`])
  return initrd
}

function librariesOf (program: string): string[] {
  const text = execFileSync('ldd', [program], { encoding: 'utf8' })
  return [...text.matchAll(/(\/\S+) \(0x/g)].map(([, path]) => path as string)
}

/** Whether every check was right. */
async function boot (kernel: string, initrd: string): Promise<boolean> {
  const machine = spawn('qemu-system-x86_64', [
    '-accel', 'tcg', '-cpu', 'max', '-m', '1500', '-smp', '2', '-nographic', '-no-reboot', '-nic', 'none',
    '-kernel', kernel, '-initrd', initrd, '-append', 'console=ttyS0 quiet panic=-1'
  ], { stdio: ['ignore', 'pipe', 'inherit'] })
  const timer = setTimeout(() => machine.kill('SIGKILL'), BOOT_WITHIN)
  let sums: string | undefined
  createInterface({ input: machine.stdout }).on('line', (line) => {
    console.log(`  ${line.trimEnd()}`)
    sums = /# passed \d+, failed \d+/.exec(line)?.[0] ?? sums
  })
  await once(machine, 'close')
  clearTimeout(timer)
  return sums?.endsWith('failed 0') === true
}

main().catch((error) => {
  console.error(error)
  process.exitCode = 1
})
