// examples/pm2.config.js under a real PM2, whose program is the first argument:
// node dist/test/reach/pm2.js NODE_MODULES/pm2/bin/pm2
// PM2 has a home of its own for this, which is removed with its daemon.
import { match, notStrictEqual, ok, rejects, strictEqual } from 'node:assert'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { text } from 'node:stream/consumers'
import { freePort } from '../free-port'

const project = resolve(__dirname, '../../..')
const config = join(project, 'examples/pm2.config.js')
const [program] = process.argv.slice(2)
const home = realpathSync(mkdtempSync(join(tmpdir(), 'fastify-real-ip-pm2-')))
const logs = (kind: 'out' | 'error') => readdirSync(join(home, 'logs')).filter((name) => name.startsWith(`hello-${kind}`))
  .map((name) => readFileSync(join(home, 'logs', name), 'utf8')).join('')

async function pm2 (args: readonly string[], env: NodeJS.ProcessEnv = {}): Promise<string> {
  const child = spawn(process.execPath, [resolve(program as string), ...args], {
    cwd: home, stdio: ['ignore', 'pipe', 'pipe'], timeout: 60_000, env: { ...process.env, ...env, PM2_HOME: home, CI: '1' }
  })
  const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'close')])
  strictEqual(code, 0, `pm2 ${args.join(' ')}: ${stdout}${stderr}`)
  return stdout
}

interface Listed {
  readonly pid: number
  readonly pm2_env: { readonly status: string, readonly exec_mode: string }
}

async function list (): Promise<Listed[]> {
  const lines = (await pm2(['jlist'])).split('\n')
  return JSON.parse(lines.filter((line) => line.startsWith('[')).at(-1) as string)
}

const start = (env: NodeJS.ProcessEnv) =>
  pm2(['start', config], { WORKERS: '2', ...env })

async function get (port: number, localAddress: string): Promise<string> {
  const request = http.get({ host: '127.0.0.1', port, localAddress, agent: false })
  // A connection that was lost on its way to a worker is never answered.
  const [response] = await once(request, 'response', { signal: AbortSignal.timeout(20_000) }) as [http.IncomingMessage]
  return await text(response)
}

const PORT = freePort()

const tests: Record<string, () => Promise<void>> = {
  async 'two workers serve, and each knows who sends' () {
    const port = await PORT
    await start({ PORT: String(port), TRUSTED_PEERS: '192.0.2.1' })
    const all = await list()
    strictEqual(all.length, 2)
    for (const { pm2_env: { status, exec_mode: mode } } of all) strictEqual(`${status} ${mode}`, 'online cluster_mode')
    const bodies = new Set<string>()
    for (let n = 0; n < 20; n++) {
      const address = `127.0.0.${20 + n}`
      const [, told, pid] = /^Hello, (\S+), from process (\d+)\n$/.exec(await get(port, address)) ?? []
      strictEqual(told, address)
      bodies.add(pid as string)
    }
    strictEqual([...bodies].sort().join(), all.map(({ pid }) => String(pid)).sort().join())
  },
  async 'each worker has warned once that it has no listening socket' () {
    const lines = logs('out').split('\n').filter((line) => line.includes('FST_REAL_IP_ROUND_ROBIN'))
    strictEqual(lines.length, 2)
    strictEqual(new Set(lines.map((line) => JSON.parse(line.slice(line.indexOf('{'))).pid)).size, 2)
    for (const line of lines) match(line, /reusePort/)
  },
  async 'a reload puts new workers in their place, and none of the requests meanwhile is lost' () {
    const before = (await list()).map(({ pid }) => pid)
    const port = await PORT
    let isDone = false
    const reloading = pm2(['reload', config]).finally(() => { isDone = true })
    let asked = 0
    for (; !isDone || asked < 10; asked++) match(await get(port, '127.0.0.9'), /^Hello, 127\.0\.0\.9, /)
    await reloading
    for (const { pid, pm2_env: { status } } of await list()) {
      strictEqual(status, 'online')
      ok(!before.includes(pid))
    }
    notStrictEqual(asked, 0)
  },
  async 'without TRUSTED_PEERS no worker serves' () {
    await pm2(['delete', 'all'])
    const port = await freePort()
    await start({ PORT: String(port), TRUSTED_PEERS: '' })
    match(logs('error'), /FST_REAL_IP_INVALID_OPTION/)
    for (const { pm2_env: { status } } of await list()) notStrictEqual(status, 'online')
    await rejects(get(port, '127.0.0.9'), { code: 'ECONNREFUSED' })
  }
}

async function main (): Promise<void> {
  if (program === undefined) throw new Error('usage: node dist/test/reach/pm2.js PATH_OF_PM2')
  let failed = 0
  try {
    for (const [name, test] of Object.entries(tests)) {
      try {
        await test()
        console.log(`ok - ${name}`)
      } catch (error) {
        failed++
        console.log(`not ok - ${name}\n${(error as Error).stack}`)
      }
    }
  } finally {
    await pm2(['kill'])
    rmSync(home, { recursive: true, maxRetries: 5 })
  }
  console.log(`${Object.keys(tests).length - failed} passed, ${failed} failed`)
  process.exitCode = failed === 0 ? 0 : 1
}

void main()
