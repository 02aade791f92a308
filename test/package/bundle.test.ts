import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, realpathSync, rmSync, symlinkSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { json } from 'node:stream/consumers'
import { build } from 'esbuild'
import t, { type Test } from 'tap'
import { project, readPage } from '../docs/markdown'
import { oneLoopback } from '../kinds'

// A server in one file, as docs/deployment.md says.

const source = `
import Fastify from 'fastify'
import realIp, { realIpKey } from 'fastify-real-ip'

const warnings = []
const app = Fastify({ logger: { level: 'warn', stream: { write (line) { warnings.push(JSON.parse(line).msg) } } } })
await app.register(realIp, { trustedPeers: 'any' })
app.get('/', (request) => ({ ...request.realAddress, key: realIpKey()(request), warnings }))
await app.listen({ port: 0, host: '127.0.0.1' })
process.send(app.server.address().port)
process.once('message', () => { app.close().then(() => process.disconnect()) })
`

const modules = ['koffi', '@koromix']

/** Bundles the server in a folder of its own, where of all packages only koffi is installed, or not. */
async function bundle (t: Test, external: string[], hasKoffi: boolean): Promise<string> {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'fastify-real-ip-bundle-')))
  t.teardown(() => rmSync(folder, { recursive: true }))
  for (const name of hasKoffi ? modules : []) {
    mkdirSync(dirname(join(folder, 'node_modules', name)), { recursive: true })
    symlinkSync(realpathSync(join(project, 'node_modules', name)), join(folder, 'node_modules', name), 'junction')
  }
  const outfile = join(folder, 'server.bundle.cjs')
  // Without await at the top, which CommonJS has not.
  const contents = source.replace('const warnings', 'async function main () {\nconst warnings') + '}\nmain()\n'
  await build({ stdin: { contents, resolveDir: project, loader: 'js' }, bundle: true, platform: 'node', external, outfile, logLevel: 'error' })
  return outfile
}

async function serve (t: Test, program: string): Promise<number> {
  const child: ChildProcess = fork(program, [], { cwd: dirname(program) })
  const ended = once(child, 'exit')
  t.teardown(async () => {
    child.send('end')
    await ended
  })
  return (await once(child, 'message') as [number])[0]
}

async function ask (port: number): Promise<any> {
  const request = http.get({ port, host: '127.0.0.1', localAddress: '127.0.0.9', agent: false })
  const [response] = await once(request, 'response') as [http.IncomingMessage]
  return { localPort: (request.socket as { localPort?: number }).localPort, ...await json(response) as object }
}

t.test('the documentation says which flags', async (t) => {
  t.match(readPage('docs/deployment.md').text, /esbuild \S+ --bundle --platform=node --external:koffi /)
})

t.test('with koffi outside, and installed: the kernel is asked', { skip: oneLoopback }, async (t) => {
  const program = await bundle(t, ['koffi'], true)
  t.notMatch(readFileSync(program, 'utf8'), 'koffi.node')
  const answer = await ask(await serve(t, program))
  t.match(answer, { address: '127.0.0.9', trust: 'trusted', key: 'no-toa:127.0.0.9', warnings: [] })
  if (process.platform === 'linux') t.match(answer, { source: 'transport-peer', transportPeer: { address: '127.0.0.9', port: answer.localPort } })
})

t.test('with koffi outside, and not installed: it serves, and says what is missing', { skip: oneLoopback }, async (t) => {
  const answer = await ask(await serve(t, await bundle(t, ['koffi'], false)))
  t.match(answer, { address: '127.0.0.9', source: 'peer', warnings: [/^fastify-real-ip: (koffi cannot be loaded|TOA can be read on Linux only)/] })
})
