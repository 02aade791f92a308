import { readdirSync, readFileSync } from 'node:fs'
import { SourceMap } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

// Fails unless all of lib/ ran in the last `npm test`: every function and every branch of the JavaScript that ships, by
// V8's own ranges over all processes of the run. Source maps only name the place: a remapped report can show 100 % of
// code that never ran.

const project = process.cwd()
const shipped = join(project, 'dist/lib')
const recorded = join(project, '.tap/coverage')

interface ScriptCoverage {
  readonly url: string
  readonly functions: Array<{ ranges: Array<{ startOffset: number, endOffset: number, count: number }> }>
}

/** By file, which of its characters ran in any process. */
function readRan (): Map<string, Uint8Array> {
  const ran = new Map<string, Uint8Array>()
  for (const name of readdirSync(recorded)) {
    const { result } = JSON.parse(readFileSync(join(recorded, name), 'utf8')) as { result: ScriptCoverage[] }
    for (const { url, functions } of result) {
      const path = fileURLToPath(url)
      if (!path.startsWith(shipped)) continue
      const here = new Uint8Array(readFileSync(path, 'utf8').length)
      // Outer ranges come before the ones inside them.
      for (const { ranges } of functions) {
        for (const { startOffset, endOffset, count } of ranges) here.fill(Math.min(count, 1), startOffset, endOffset)
      }
      const all = ran.get(path)
      ran.set(path, all === undefined ? here : all.map((before, at) => before | (here[at] as number)))
    }
  }
  return ran
}

/** What a type-only file leaves: nothing but the compiler's frame. */
const isEmpty = (code: string) => code
  .replace(/^"use strict";$|^Object\.defineProperty\(exports, "__esModule".*$|^\/\/#.*$/gm, '').trim() === ''

function findGaps (path: string, ran: Uint8Array | undefined): string[] {
  const code = readFileSync(path, 'utf8')
  const source = path.slice(shipped.length + 1).replace(/\.js$/, '.ts')
  if (ran === undefined) return isEmpty(code) ? [] : [`lib/${source} was never loaded`]
  const map = new SourceMap(JSON.parse(readFileSync(`${path}.map`, 'utf8')))
  const lines = readFileSync(join(project, 'lib', source), 'utf8').split('\n')
  const gaps: string[] = []
  for (let start = ran.indexOf(0); start !== -1;) {
    const next = ran.indexOf(1, start)
    const end = next === -1 ? ran.length : next
    const text = code.slice(start, end)
    // V8 counts the closing braces behind a return as a range of their own.
    if (!/^[\s{}();,]*$/.test(text)) {
      const before = code.slice(0, start + text.search(/\S/)).split('\n')
      const entry = map.findEntry(before.length - 1, (before.at(-1) as string).length)
      // Without an entry it is the compiler's: an import helper.
      if ('originalLine' in entry) {
        gaps.push(`lib/${source}:${entry.originalLine + 1} never ran: ${(lines[entry.originalLine] as string).trim()}`)
      }
    }
    start = next === -1 ? -1 : ran.indexOf(0, next)
  }
  return gaps
}

const ran = readRan()
const files = readdirSync(shipped, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.js'))
const gaps = files.flatMap((name) => findGaps(join(shipped, name), ran.get(join(shipped, name))))
if (files.length === 0) gaps.push('dist/lib is empty')

for (const gap of gaps) console.log(gap)
console.log(`coverage of lib/: ${files.length} files, ${gaps.length} gaps`)
process.exitCode = gaps.length === 0 ? 0 : 1
