import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { generate, RESULTS } from '../../bench/documents'
import type { Results } from '../../bench/figure'
import type { Row } from '../../bench/report'
import { project } from './markdown'

// What the documents say of speed is what a run wrote down, and nothing else.

const read = (path: string) => readFileSync(join(project, path), 'utf8')
const readme = read('README.md')
const recorded = existsSync(RESULTS) ? JSON.parse(readFileSync(RESULTS, 'utf8')) as Results : undefined

if (recorded === undefined) {
  t.test('as long as no complete run is recorded, nothing is told', async (t) => {
    for (const path of ['docs/performance.md', 'bench/chart.svg']) t.notOk(existsSync(join(project, path)), path)
    t.match(readme, /^<!-- performance: .* -->\n<!-- \/performance -->$/m)
  })
} else {
  t.test('docs/performance.md, bench/chart.svg and the README are what bench/results.json makes them', async (t) => {
    const generated = Object.entries(generate(recorded, readme))
    t.same(generated.map(([path]) => path), ['docs/performance.md', 'bench/chart.svg', 'README.md'])
    for (const [path, text] of generated) t.equal(read(path), text, `${path}: npm run docs:performance`)
  })

  t.test('every figure and every row of the run is told', async (t) => {
    const page = read('docs/performance.md')
    t.ok(recorded.figures.length > 5)
    for (const { name, date, rows } of recorded.figures) {
      t.ok(page.includes(`## \`${name}\`, ${date}\n`), name)
      for (const row of rows) t.ok(page.includes(`| ${row.name} |`), row.name)
    }
  })
}

const value = { median: 1.004, low: 0.998, high: 1.014, samples: 25 }
const control = { ...value, median: 1.001 }
const quoted: Row = { name: 'fastify-real-ip', value, control, samplesNeeded: 25, target: 1.015, judgedBy: 'upper end', absolute: { plainMicroseconds: 17.864 } }

const run: Omit<Results, 'figures'> = {
  node: 'v20.0.0', kernel: '6.1.0', machine: 'linux x64, 2 × a processor', pinned: true
}

/** The page's line, the chart and the README for a run with this row. */
function tell (row: Row): { readonly page: string, readonly line: string | undefined, readonly chart: string, readonly readme: string } {
  const made = generate({ ...run, figures: [{ name: 'keep-alive', date: '2026-01-02', title: 'CPU', rows: [row] }] }, readme)
  const line = made['docs/performance.md']?.split('\n').find((line) => line.startsWith(`| ${row.name.slice(0, 3)}`))
  return { page: made['docs/performance.md'] as string, line, chart: made['bench/chart.svg'] as string, readme: made['README.md'] as string }
}

t.test('a figure is told with its interval, its control and its target', async (t) => {
  const { line, chart, readme } = tell(quoted)
  t.equal(line, '| fastify-real-ip | 1.004 [0.998, 1.014] | 1.001 [0.998, 1.014] | ≤ 1.015 (upper end): met | plain microseconds 17.9 |')
  t.match(chart, '>1.004</text>')
  t.match(readme, 'a request on a kept connection no difference seen, 1.004 [0.998, 1.014]')
})

t.test('the first table and the README answer in words; below 1 nothing is called a gain', async (t) => {
  const cases: Array<[Row, string]> = [
    [quoted, 'no difference seen'],
    [{ ...quoted, value: { ...value, median: 1.031, low: 1.02, high: 1.04 } }, '3 % more than plain Fastify'],
    [{ ...quoted, value: { ...value, median: 1.012, low: 1.005, high: 1.02 } }, 'no difference seen'],
    [{ ...quoted, value: { ...value, median: 0.992, low: 0.97, high: 1.003 } }, 'no difference seen'],
    [{ ...quoted, value: { ...value, median: 0.96, low: 0.94, high: 0.98 } }, 'no more than plain Fastify'],
    [{ ...quoted, control: { ...control, median: 0.984 } }, 'drowns in noise (not quotable: control 0.984)']
  ]
  for (const [row, answer] of cases) {
    const { page, chart, readme } = tell(row)
    t.match(page, `| a request on a kept connection | ${answer} |`)
    t.match(readme, `a request on a kept connection ${answer}`)
    for (const told of [page, readme]) t.notMatch(told, /% less than plain Fastify|faster/)
    t.equal(chart.includes('>not above 1</text>'), row.value !== undefined && row.value.median < 1)
  }
  t.match(tell(quoted).page, '| a new connection per request | not measured |')
})

t.test('a target is held against the upper end where the row says so', async (t) => {
  const wider = { ...quoted, value: { ...value, high: 1.016 } }
  t.match(tell(wider).line, '≤ 1.015 (upper end): **missed** |')
  t.match(tell({ ...wider, judgedBy: 'median' }).line, '≤ 1.015: met |')
})

t.test('nothing is quoted of a run that was too noisy or too short, nor judged', async (t) => {
  const rows: Array<[Row, string]> = [
    [{ ...quoted, control: { ...control, median: 0.984 } }, 'not quotable: control 0.984'],
    [{ ...quoted, value: { ...value, samples: 24 } }, 'not quotable: 24 sessions of 25'],
    [{ name: quoted.name, notShown: 'there is no lab', target: 1 }, 'not shown']
  ]
  for (const [row, why] of rows) {
    const { line, chart, readme } = tell(row)
    for (const told of [line, chart, readme]) {
      t.match(told, why)
      t.notMatch(told, /1\.004|17\.9/)
    }
    t.match(line, 'not judged')
  }
})

t.test('markup in names stays text', async (t) => {
  const name = 'a < b | c & d'
  const { line, chart } = tell({ ...quoted, name })
  t.match(line, 'a < b \\| c & d')
  t.match(chart, '>a &lt; b | c &amp; d</text>')
})
