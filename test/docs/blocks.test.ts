import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import { hasIPv6 } from '../player/namespace'
import { brokenLinks, project, readPages, type Block } from './markdown'
import { compile } from './typescript'

// Every block of code in README.md and docs/ is compiled, run or parsed.

t.setTimeout(120_000)

const pages = readPages()
const blocks = pages.flatMap(({ blocks }) => blocks)
const inLanguage = (...languages: string[]) => blocks.filter(({ language }) => languages.includes(language))

t.test('there is no block that no test knows', async (t) => {
  t.ok(blocks.length > 10)
  for (const { place, language, mark } of blocks) {
    t.ok(['js', 'ts', 'sh', 'json', 'text'].includes(language), `${place} is ${language}`)
    t.ok(mark === '' || (mark === 'run' && language === 'js'), place)
  }
})

t.test('TypeScript and JavaScript compile against the package\'s types', async (t) => {
  t.same(compile(inLanguage('ts', 'js')), [])
})

t.test('an error in a block is found, and its place', async (t) => {
  const wrong = { place: 'README.md:7', language: 'ts', mark: '', code: "const fine = 1\nawait app.register(realIp, { sources: ['getpeer'] })\n" }
  const errors = compile([wrong])
  t.ok(errors.length > 0)
  t.match(errors[0], /^README\.md:8 .*/)
  t.match(compile([{ ...wrong, code: 'const port: number = request.realIp' }])[0], /^README\.md:7 Cannot find name 'request'/)
})

/** Runs a program until it listens; its origin. */
async function run (t: Test, code: string): Promise<string> {
  const child = spawn(process.execPath, ['--input-type=module', '--eval', code], { cwd: project, stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(child, 'close')
  t.teardown(async () => {
    child.kill()
    await ended
  })
  for await (const line of createInterface(child.stdout)) {
    const port = /listening at http:[^"]*:(\d+)/.exec(line)?.[1]
    if (port !== undefined) return `http://127.0.0.1:${port}`
  }
  throw new Error('it ended without a server')
}

const needsLinux = (code: string) => process.platform !== 'linux' && code.includes('trustedPeers') && 'the sender of packets is known on Linux alone'

for (const { place, code } of inLanguage('js').filter(({ mark }) => mark === 'run')) {
  t.test(`${place} runs`, { skip: needsLinux(code) }, async (t) => {
    t.match(code, "host: '::'", 'it listens where a balancer reaches it')
    const here = hasIPv6() ? code : code.replace("host: '::'", "host: '0.0.0.0'")
    const response = await fetch(await run(t, here.replace('port: 3000', 'port: 0')))
    t.equal(response.status, 200)
    t.match(await response.text(), /127\.0\.0\.1/)
  })
}

const [blockList] = inLanguage('ts').filter(({ code }) => code.includes('BlockList')) as [Block]
t.test(`${blockList.place} keeps out whom it lists, and nobody else`, { skip: needsLinux(blockList.code) }, async (t) => {
  const serve = (code: string) => run(t, "import Fastify from 'fastify'\nimport realIp from 'fastify-real-ip'\n" +
    `const app = Fastify({ logger: true })\n${code}\napp.get('/', (request) => request.realIp)\nawait app.listen({ host: '${hasIPv6() ? '::' : '0.0.0.0'}', port: 0 })`)
  const nobody = await serve(blockList.code)
  const thisHost = await serve(blockList.code.replace("'198.51.100.0'", "'127.0.0.0'").replace("'2001:db8:bad::', 48", "'::1', 128"))
  const hosts = [['127.0.0.1', '127.0.0.1'], ...hasIPv6() ? [['[::1]', '::1']] : []] as Array<[host: string, address: string]>
  for (const [host, address] of hosts) {
    t.equal(await (await fetch(nobody.replace('127.0.0.1', host))).text(), address)
    await t.rejects(fetch(thisHost.replace('127.0.0.1', host)), { cause: { code: /ECONNRESET|UND_ERR_SOCKET/ } }, `${address} is reset`)
  }
})

t.test('JSON parses', async (t) => {
  for (const { code, place } of inLanguage('json')) t.doesNotThrow(() => JSON.parse(code), place)
})

t.test('shell blocks parse, and what they name is there', async (t) => {
  const { scripts, bin } = require('fastify-real-ip/package.json')
  for (const { code, place } of inLanguage('sh')) {
    if (process.platform !== 'win32') {
      const { status, stderr } = spawnSync('sh', ['-n'], { input: code, encoding: 'utf8' })
      t.equal(status, 0, `${place} ${stderr}`)
    }
    for (const [, script] of code.matchAll(/npm (?:run )?(start|test|(?<=run )[\w:]+)/g)) t.ok(script as string in scripts, `${place}: ${script}`)
    for (const [, command] of code.matchAll(/npx (\S+)/g)) t.ok(command as string in bin, `${place}: ${command}`)
    for (const [, path] of code.matchAll(/node dist\/(\S+)\.js/g)) t.ok(existsSync(join(project, `${path}.ts`)), `${place}: ${path}`)
  }
})

t.test('links lead somewhere', async (t) => {
  for (const page of pages) t.same(brokenLinks(page), [], page.path)
})

t.test('every page is linked from README.md', async (t) => {
  const [readme, ...others] = pages
  for (const { path } of others) t.ok(readme?.prose.includes(`](${path})`), path)
})
