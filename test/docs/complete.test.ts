import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import * as errors from '../../lib/errors'
import { project, readPage, section, tableRows } from './markdown'
import { readDeclarations } from './typescript'

// Whatever a user can meet has its entry, and no entry is left of what is gone.

t.setTimeout(120_000)

const declared = readDeclarations()
const readme = readPage('README.md')
const troubleshooting = readPage('docs/troubleshooting.md')

const headings = (text: string) => [...text.matchAll(/^### `(\w+)`$/gm)].map(([, code]) => code as string)

t.test('every option has its row in the README, with its default', async (t) => {
  const rows = tableRows(section(readme, 'Options'))
  t.ok(declared.options.size > 10)
  t.same([...rows.keys()].filter((name) => /^[a-zA-Z.]+$/.test(name)).sort(), [...declared.options.keys()].sort())
  for (const [name, value] of declared.options) {
    const [, cell, what] = rows.get(name) ?? []
    if (value !== undefined) t.equal(cell, `\`${value}\``, `the default of ${name}`)
    else t.notMatch(cell, /`/, `${name} has no default`)
    t.ok(what, `what ${name} does`)
  }
})

t.test('everything decorated is in the README', async (t) => {
  const decorated = [...tableRows(section(readme, 'What is decorated')).keys()].join(' ')
  for (const name of declared.request) t.match(decorated, `request.${name}`)
  for (const name of declared.realIp) t.match(decorated, `app.realIp.${name}(`)
})

t.test('every reason has its entry in troubleshooting.md, with cause and cure', async (t) => {
  const rows = tableRows(section(troubleshooting, 'Reasons'))
  t.ok(declared.reasons.length > 10)
  t.same([...rows.keys()].sort(), [...declared.reasons].sort())
  for (const [name, [, cause, cure]] of rows) t.ok(cause !== '' && cure !== '' && cure !== undefined, name)
})

t.test('so has what the sources say', async (t) => {
  const rows = tableRows(section(troubleshooting, 'What the sources said'))
  const said = new Set(declared.attempts)
  for (const path of ['lib/sources/toa-option.ts', 'lib/sources/resolve.ts', ...readdirSync(join(project, 'lib/sources')).map((name) => `lib/sources/${name}`)]) {
    const code = readFileSync(join(project, path), 'utf8')
    for (const [, word] of code.matchAll(/(?:return|reason =|[?:]) '([a-z]+(?:-[a-z]+)+|ambiguous)'/g)) said.add(word as string)
  }
  for (const source of ['saved-syn', 'first', 'last']) said.delete(source)
  t.ok(said.has('no-option') && said.has('ENOPROTOOPT'))
  for (const word of said) t.ok(rows.has(word), word)
  for (const [name, [, source, cause, cure]] of rows) t.ok(source !== '' && cause !== '' && cure !== '' && cure !== undefined, name)
})

t.test('so has every warning and every error', async (t) => {
  const groups = [['Warnings', [...declared.warnings, 'FST_REAL_IP_UNKNOWN_OPTION']], ['Errors', Object.keys(errors)]] as const
  for (const [heading, codes] of groups) {
    const text = section(troubleshooting, heading)
    t.ok(codes.length > 3)
    t.same(headings(text).sort(), [...codes].sort())
    for (const code of codes) {
      const entry = section(troubleshooting, `\`${code}\``)
      t.match(entry, /^\*\*Cause\.\*\* /m, code)
      t.match(entry, /^\*\*Cure\.\*\* /m, code)
    }
  }
})
