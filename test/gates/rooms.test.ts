import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { ESLint } from 'eslint'
import t from 'tap'

// The order of the rooms, as docs/architecture.md has it, and the two things that one file alone may do.

const project = path.dirname(require.resolve('fastify-real-ip/package.json'))
const eslint = new ESLint({ cwd: project })

async function complaints (file: string, code: string): Promise<string[]> {
  const [result] = await eslint.lintText(code, { filePath: path.join(project, file) })
  return result!.messages.map(({ ruleId }) => ruleId ?? 'parser')
}

t.test('an import against the order is an error, one along it is none', async (t) => {
  for (const [file, imported] of [
    ['lib/node/servers.ts', '../trust/judge'], ['lib/address/ranges.ts', '../kernel/libc'], ['lib/options/options.ts', '../kernel/libc'],
    ['lib/node/servers.ts', '../address/address'], ['lib/address/ranges.ts', '../node/sockets'],
    ['lib/kernel/libc.ts', '../options/options'], ['lib/kernel/sockaddr.ts', '../sources/vtoa'], ['lib/sources/resolve.ts', '../trust/table'],
    ['lib/trust/judge.ts', '../http/observer'], ['lib/http/observer.ts', '../cli/watch'], ['lib/trust/guard.ts', '../plugin'],
    ['lib/http/hold.ts', '../index']
  ] as const) {
    t.same(await complaints(file, `import '${imported}'\n`), ['no-restricted-imports'], `${file} and ${imported}`)
  }
  for (const [file, imported] of [
    ['lib/cli/watch.ts', '../http/arrivals'], ['lib/http/observer.ts', '../trust/judge'], ['lib/trust/judge.ts', '../sources/course'],
    ['lib/sources/choose.ts', '../options/options'], ['lib/kernel/libc.ts', './constants'], ['lib/plugin.ts', './http/arrivals'],
    ['lib/trust/judge.ts', '../errors']
  ] as const) {
    t.same(await complaints(file, `import '${imported}'\n`), [], `${file} and ${imported}`)
  }
})

t.test('one file loads koffi, one touches the internals of sockets', async (t) => {
  t.same(await complaints('lib/http/log.ts', "import 'koffi'\n"), ['no-restricted-imports'])
  t.same(await complaints('lib/http/log.ts', 'export const fd = (socket: any) => socket._handle.fd\n'), ['no-restricted-syntax'])
  const files = readdirSync(path.join(project, 'lib'), { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'))
  const withText = (text: RegExp) => files.filter((file) => text.test(readFileSync(path.join(project, 'lib', file), 'utf8')))
  t.same(withText(/= require\('koffi'\)|bind\(require\('koffi'\)|^import .* from 'koffi'/m), [path.join('kernel', 'libc.ts')])
  t.same(withText(/\b_handle\b/), [path.join('node', 'sockets.ts')])
})
