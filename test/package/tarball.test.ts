import { execFileSync } from 'node:child_process'
import t from 'tap'
import { brokenLinks, project, readPage } from '../docs/markdown'

// What a user reads who has nothing but the tarball.

t.setTimeout(120_000)

const packed = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], {
  cwd: project, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], shell: process.platform === 'win32'
})
const files = new Set((JSON.parse(packed) as [{ files: Array<{ path: string }> }])[0].files.map(({ path }) => path))

t.test('links of the packed documents lead into the tarball', async (t) => {
  const pages = [...files].filter((path) => path.endsWith('.md'))
  for (const page of ['README.md', 'SECURITY.md', 'CHANGELOG.md', 'docs/trust.md']) t.ok(pages.includes(page), page)
  for (const path of pages) t.same(brokenLinks(readPage(path), (target) => files.has(target)), [], path)
})

t.test('a link to what is not packed is found', async (t) => {
  const page = { ...readPage('README.md'), prose: '[test](test/demo.test.ts), [docs](docs/trust.md#the-table), [gone](docs/trust.md#gone)' }
  t.same(brokenLinks(page, (target) => files.has(target)), ['test/demo.test.ts', 'docs/trust.md#gone'])
})

t.test('no test, bench or example is packed', async (t) => {
  t.same([...files].filter((path) => /^(dist\/)?(test|bench|examples)\/.*\.[jt]s$/.test(path)), [])
})
