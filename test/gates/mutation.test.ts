import { existsSync, readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import type { Equivalent, Result } from '../mutation/reporter'

// What test/mutation/*.json names must still be there: `npm run mutation` takes hours, so that nobody would notice soon.

const project = path.dirname(require.resolve('fastify-real-ip/package.json'))
const read = (file: string) => readFileSync(path.join(project, file), 'utf8')
const parse = <Type>(name: string) => JSON.parse(read(`test/mutation/${name}.json`)) as Type
const files = readdirSync(path.join(project, 'lib'), { recursive: true, encoding: 'utf8' })
  .filter((file) => file.endsWith('.ts')).map((file) => `lib/${file}`).sort()

t.test('tests.json names the tests of every file', async (t) => {
  const testsOf = parse<Record<string, string[]>>('tests')
  t.same(Object.keys(testsOf).sort(), files)
  t.same(Object.values(testsOf).flat().filter((test) => !existsSync(path.join(project, `test/${test}.test.ts`))), [])
})

t.test('equivalent.json names lines that exist', async (t) => {
  t.same(parse<Equivalent[]>('equivalent').filter(({ file, line, from }) => {
    const lines = files.includes(file) ? read(file).split('\n').map((text) => text.replace(/\s+/g, ' ').trim()) : []
    return !lines.some((text, i) => text === line && lines.slice(i).join(' ').includes(from))
  }), [])
})

t.test('results.json has no file that is gone', async (t) => {
  t.same(Object.keys(parse<{ files: Record<string, Result> }>('results').files).filter((file) => !files.includes(file)), [])
})
