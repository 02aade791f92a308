import { execFileSync } from 'node:child_process'
import { accessSync, copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

// Installs the packed tarball, given as the argument, in an empty project and uses it from there: in CommonJS, in ESM,
// and in TypeScript compiled to each. Then runs its command, and loads what attach needs. The command runs too, with the eBPF programs in it.

const tarball = resolve(process.argv[2] as string)
const project = join(__dirname, '../../..')
const samples = join(project, 'test/gates/consumer')
const folder = mkdtempSync(join(tmpdir(), 'fastify-real-ip-consumer-'))

const run = (file: string, ...args: string[]) => execFileSync(file, args, { cwd: folder, stdio: 'inherit' })
const asInstalledHere = (name: string) => `${name}@${require(join(project, 'node_modules', name, 'package.json')).version}`

try {
  writeFileSync(join(folder, 'package.json'), '{ "private": true }')
  // Without scripts: the prebuilt binary of koffi must be enough.
  run('npm', 'install', '--ignore-scripts', '--no-audit', '--no-fund', tarball,
    asInstalledHere('fastify'), asInstalledHere('@types/node'))

  copyFileSync(join(samples, 'commonjs.cjs'), join(folder, 'commonjs.cjs'))
  copyFileSync(join(samples, 'esm.mjs'), join(folder, 'esm.mjs'))
  for (const name of ['typescript.cts', 'typescript.mts']) {
    copyFileSync(join(samples, 'typescript.ts'), join(folder, name))
  }
  run(process.execPath, join(project, 'node_modules/typescript/bin/tsc'),
    '--strict', '--exactOptionalPropertyTypes', '--module', 'node16', '--target', 'es2022', '--types', 'node',
    'typescript.cts', 'typescript.mts')

  for (const name of ['commonjs.cjs', 'esm.mjs', 'typescript.cjs', 'typescript.mjs']) {
    run(process.execPath, name)
    console.log(`${name} ok`)
  }

  const installed = join(folder, 'node_modules/fastify-real-ip')
  const help = execFileSync(join(folder, 'node_modules/.bin/fastify-real-ip'), ['attach', '--help'], { cwd: folder, encoding: 'utf8' })
  if (!help.includes('--trusted-peers LIST')) throw new Error(`attach --help printed:\n${help}`)
  const { programs } = require(join(installed, 'dist/lib/attach/programs.js')) as typeof import('../../lib/attach/programs')
  for (const { name, instructions } of Object.values(programs)) {
    if (Buffer.from(instructions, 'base64').length < 8) throw new Error(`${name} has no instructions`)
  }
  for (const path of ['bpf/toa.bpf.c', 'examples/attach/fastify-real-ip-attach.service', 'examples/attach/daemonset.yaml']) {
    accessSync(join(installed, path))
  }
  console.log(`attach ok: ${Object.keys(programs).join(', ')}`)
} finally {
  rmSync(folder, { recursive: true })
}
