import { execFile } from 'node:child_process'
import { cpSync, mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync, symlinkSync, truncateSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import type { FastifyRealIpOptions } from 'fastify-real-ip'
import type { Noticed } from './serve-once'

t.setTimeout(120_000)

const project = join(__dirname, '../../..')
const allowed = process.allowedNodeEnvironmentFlags

/** A folder with this package installed as users have it, but without koffi, or with what is put in its place. */
function installWithoutKoffi (replaceKoffi: (modules: string) => void = () => {}): string {
  // Not inside the project, where koffi would be found further up.
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'without-koffi-')))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const modules = join(folder, 'node_modules')
  const { dependencies, name } = require('fastify-real-ip/package.json')
  for (const dependency of [...Object.keys(dependencies), 'fastify']) {
    if (dependency === 'koffi') continue
    mkdirSync(dirname(join(modules, dependency)), { recursive: true })
    symlinkSync(join(project, 'node_modules', dependency), join(modules, dependency), 'junction')
  }
  for (const shipped of ['package.json', 'dist/lib']) {
    cpSync(join(project, shipped), join(modules, name, shipped), { recursive: true })
  }
  replaceKoffi(modules)
  const script = join(folder, 'serve-once.js')
  cpSync(join(__dirname, 'serve-once.js'), script)
  return script
}

/** koffi as it is, but for its binary, which is an empty file: the disk was full when it was installed. */
function emptyKoffi (modules: string): void {
  for (const name of ['koffi', '@koromix']) cpSync(join(project, 'node_modules', name), join(modules, name), { recursive: true })
  for (const name of readdirSync(join(modules, '@koromix'), { recursive: true, encoding: 'utf8' })) {
    if (name.endsWith('.node')) truncateSync(join(modules, '@koromix', name))
  }
}

function permissionFlags (): string[] {
  const flag = allowed.has('--permission') ? '--permission' : '--experimental-permission'
  return [flag, '--allow-fs-read=*', ...allowed.has('--allow-net') ? ['--allow-net'] : []]
}

interface Degraded {
  readonly flags: string[]
  readonly script: string
  readonly says: RegExp
  /** tap's own preload writes files and starts a thread, which the permission model forbids. */
  readonly bare?: boolean
  readonly skip?: string | false
}

const inPlace = join(__dirname, 'serve-once.js')

const degraded: Record<string, Degraded> = {
  'koffi missing': {
    flags: [],
    script: installWithoutKoffi(),
    says: /koffi cannot be loaded \(Cannot find module 'koffi'\)/
  },
  'koffi throws at load': {
    flags: [],
    script: installWithoutKoffi(emptyKoffi),
    says: /koffi cannot be loaded \(.*koffi\.node: file too short\)/
  },
  '--no-addons': {
    flags: ['--no-addons'],
    script: inPlace,
    says: /koffi cannot be loaded \(.*addon.*\)/
  },
  '--permission without --allow-addons': {
    flags: permissionFlags(),
    script: inPlace,
    says: /koffi cannot be loaded \(.*addon.*\)/,
    bare: true,
    skip: process.platform === 'win32' && 'needs env(1)'
  },
  'another platform': {
    flags: ['--require', join(__dirname, 'another-platform.js')],
    script: inPlace,
    says: /TOA can be read on Linux only, this is darwin/
  }
}

async function run ({ flags, script, bare }: Degraded, options: FastifyRealIpOptions): Promise<Noticed> {
  const node = [process.execPath, ...flags, script, JSON.stringify(options)]
  const [file, ...args] = bare ? ['env', '-u', 'NODE_OPTIONS', ...node] : node
  const { stdout } = await promisify(execFile)(file as string, args, { cwd: dirname(script) })
  return JSON.parse(stdout)
}

for (const [name, how] of Object.entries(degraded)) {
  t.test(name, { skip: how.skip ?? false }, async (t) => {
    const says = process.platform === 'linux' ? how.says : /TOA can be read on Linux only/

    t.test('requests get the socket\'s own remote address, after one warning', async (t) => {
      const { registered, warnings, answers } = await run(how, {})
      t.ok(registered)
      t.equal(warnings.length, 1)
      t.match(warnings[0], says)
      t.equal(answers.length, 2)
      for (const answer of answers) {
        t.match(answer, { address: '127.0.0.1', family: 'IPv4', source: 'peer', reason: 'native-unavailable', attempts: [] })
        t.type(answer.port, 'number')
      }
    })

    t.test("with trustedPeers: 'any' requests get the same, as trusted", async (t) => {
      const { answers } = await run(how, { trustedPeers: 'any' })
      t.equal(answers.length, 2)
      for (const answer of answers) {
        t.match(answer, { address: '127.0.0.1', source: 'peer', reason: 'no-toa', trust: 'trusted' })
      }
    })

    t.test('with a list of trustedPeers it does not listen', async (t) => {
      const { registered, code, listening } = await run(how, { trustedPeers: ['10.0.0.0/8'] })
      t.ok(registered)
      t.equal(code, 'FST_REAL_IP_NO_TRANSPORT_PEER')
      t.notOk(listening)
    })

    t.test('HTTP proxies alone: on Linux the sender may be rewritten, elsewhere it is what Node.js says', async (t) => {
      const isLinux = process.platform === 'linux' && name !== 'another platform'
      for (const trust of [['loopback'], ['10.0.0.0/8']]) {
        const { registered, warnings, answers } = await run(how, { forwarded: { trust } })
        t.ok(registered)
        t.equal(answers.length, 2)
        if (isLinux) {
          t.equal(warnings.length, 1)
          t.match(warnings[0], says)
          t.match(warnings[0], /the senders of connections are unknown: headers are ignored/)
          for (const { address = 'none', source, trust } of answers) {
            t.same({ address, source, trust }, { address: 'none', source: 'none', trust: 'unverified' })
          }
        } else {
          t.same(warnings.filter((text) => !/sidecar/.test(text)), [])
          for (const answer of answers) {
            t.match(answer, trust[0] === 'loopback'
              ? { address: '203.0.113.7', source: 'forwarded', trust: 'trusted', transportPeer: { address: '127.0.0.1' } }
              : { address: '127.0.0.1', source: 'transport-peer', trust: 'untrusted', transportPeer: { address: '127.0.0.1' } })
          }
        }
      }
    })

    t.test('beside a list of trustedPeers they are not enough to listen', async (t) => {
      const { registered, code } = await run(how, { trustedPeers: [], forwarded: { trust: ['loopback'] } })
      t.ok(registered)
      t.equal(code, 'FST_REAL_IP_NO_TRANSPORT_PEER')
    })

    t.test('with require: true it fails to register', async (t) => {
      const { registered, code, warnings } = await run(how, { require: true })
      t.notOk(registered)
      t.equal(code, 'FST_REAL_IP_NATIVE_UNAVAILABLE')
      t.same(warnings, [])
    })
  })
}
