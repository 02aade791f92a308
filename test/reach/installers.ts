import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'

// The packed tarball, installed by other package managers in empty projects and used there from CommonJS and from ESM:
// node dist/test/reach/installers.js TARBALL NODE_MODULES
// NODE_MODULES has pnpm, yarn (1) and @yarnpkg/cli-dist (4). Yarn 4 runs in its default mode, Plug'n'Play. No install
// scripts: the prebuilt binary of koffi must be enough, as pnpm runs none unless told to.

const [tarball, nodeModules] = process.argv.slice(2).map((path) => resolve(path)) as [string, string]
const project = join(__dirname, '../../..')
const fastify = `fastify@${require(join(project, 'node_modules/fastify/package.json')).version}`
const registry = execFileSync('npm', ['config', 'get', 'registry'], { encoding: 'utf8' }).trim()

interface Installer {
  /** relative to NODE_MODULES */
  readonly script: string
  readonly add: readonly string[]
  /** whether it runs the scripts of the project too: `yarn node SCRIPT` */
  readonly runs?: true
}

const installers: Record<string, Installer> = {
  pnpm: { script: 'pnpm/bin/pnpm.cjs', add: ['add', '--ignore-scripts'] },
  // Fastify depends on a cookie package that names Node.js 22: the others warn, Yarn 1 stops.
  'Yarn 1': { script: 'yarn/bin/yarn.js', add: ['add', '--ignore-scripts', '--non-interactive', '--ignore-engines'] },
  'Yarn 4': { script: '@yarnpkg/cli-dist/bin/yarn.js', add: ['add'], runs: true }
}

const scratch = mkdtempSync(join(tmpdir(), 'fastify-real-ip-installers-'))

function install (name: string, { script, add, runs }: Installer): void {
  const folder = join(scratch, name.replace(' ', '-'))
  const home = join(folder, 'home')
  const program = join(nodeModules, script)
  mkdirSync(home, { recursive: true })
  writeFileSync(join(folder, 'package.json'), '{ "name": "consumer", "private": true }')
  // Without it Yarn 4 takes the folder for a part of a project above.
  writeFileSync(join(folder, 'yarn.lock'), '')
  for (const sample of ['commonjs.cjs', 'esm.mjs']) copyFileSync(join(project, 'test/gates/consumer', sample), join(folder, sample))
  const env = {
    ...process.env,
    HOME: home,
    XDG_DATA_HOME: home,
    XDG_CACHE_HOME: home,
    XDG_STATE_HOME: home,
    npm_config_registry: registry,
    YARN_REGISTRY: registry,
    YARN_NPM_REGISTRY_SERVER: registry,
    YARN_ENABLE_SCRIPTS: '0',
    YARN_ENABLE_IMMUTABLE_INSTALLS: '0',
    YARN_ENABLE_TELEMETRY: '0'
  }
  const node = (...args: string[]) => execFileSync(process.execPath, args, { cwd: folder, env, stdio: 'pipe', encoding: 'utf8' })
  const version = node(program, '--version').trim()
  node(program, ...add, `fastify-real-ip@file:${tarball}`, fastify)
  for (const sample of ['commonjs.cjs', 'esm.mjs']) {
    if (runs === true) node(program, 'node', sample)
    else node(sample)
  }
  console.log(`${name} ${version} ok`)
}

try {
  for (const [name, installer] of Object.entries(installers)) {
    try {
      install(name, installer)
    } catch (error) {
      const { stdout, stderr } = error as { readonly stdout?: string, readonly stderr?: string }
      console.error(`${name}:`, error, stdout, stderr)
      process.exitCode = 1
    }
  }
} finally {
  rmSync(scratch, { recursive: true })
}
