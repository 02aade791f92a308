import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { drawChart } from './chart'
import type { Results } from './figure'
import { writePage, writeReadmeBlock } from './page'

const project = join(__dirname, '../..')
export const RESULTS = join(project, 'bench/results.json')
const README = 'README.md'
const BLOCK = /(?<=^<!-- performance: .* -->\n)[^]*?(?=^<!-- \/performance -->$)/m

/** The documents generated from results, by path; in the README one block is replaced. */
export function generate (results: Results, readme: string): Record<string, string> {
  if (!BLOCK.test(readme)) throw new Error(`there is no block for figures in ${README}`)
  return {
    'docs/performance.md': writePage(results),
    'bench/chart.svg': drawChart(results),
    [README]: readme.replace(BLOCK, () => writeReadmeBlock(results))
  }
}

export function writeDocuments (): void {
  const results = JSON.parse(readFileSync(RESULTS, 'utf8')) as Results
  const readme = readFileSync(join(project, README), 'utf8')
  for (const [path, text] of Object.entries(generate(results, readme))) writeFileSync(join(project, path), text)
}

if (require.main === module) writeDocuments()
