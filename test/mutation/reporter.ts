import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { relative } from 'node:path'
import type { Reporter } from '@stryker-mutator/api/report' with { 'resolution-mode': 'import' }

// Keeps what each file of lib/ came to, from runs over all of them or over some, and names the survivors that nobody has
// looked at: those without an entry in equivalent.json.

type Report = Parameters<Required<Reporter>['onMutationTestReportReady']>[0]
type Place = Pick<Report['files'][string]['mutants'][number], 'location' | 'replacement'>
type Mutant = Place & Pick<Report['files'][string]['mutants'][number], 'status'>

/** Mutants that no test can tell from the original, by the line they are in and what they put in place of what. */
export interface Equivalent {
  readonly file: string
  readonly line: string
  readonly from: string
  readonly to: readonly string[]
  readonly why: string
}

export interface Result {
  readonly mutants: number
  /** How many there are, if not all were tried. */
  readonly of?: number
  readonly killed: number
  readonly timeout: number
  readonly survived: number
  readonly noCoverage: number
  /** Of those that survived or that nothing reaches, how many can be told by no test. */
  readonly equivalent: number
  /** Killed and timed out, in percent of all, equivalent ones included. */
  readonly score: number
}

const results = 'test/mutation/results.json'
const equivalents = JSON.parse(readFileSync('test/mutation/equivalent.json', 'utf8')) as Equivalent[]

const oneLine = (text: string) => text.replace(/\s+/g, ' ').trim()
const percent = (part: number, whole: number) => whole === 0 ? 100 : Math.round(part / whole * 10_000) / 100

const isOpen = ({ status }: Mutant) => status === 'Survived' || status === 'NoCoverage'

function place (file: string, { location: { start, end }, replacement = '' }: Place) {
  const lines = readFileSync(file, 'utf8').split('\n').slice(start.line - 1, end.line)
  const line = oneLine(lines[0] as string)
  lines.push((lines.pop() as string).slice(0, end.column - 1))
  lines[0] = (lines[0] as string).slice(start.column - 1)
  return { line, from: oneLine(lines.join(' ')), to: oneLine(replacement) }
}

/** Whether no test can tell a mutant of a file from the original. */
function isKnown (name: string, mutant: Place): boolean {
  const { line, from, to } = place(name, mutant)
  return equivalents.some((known) => known.file === name && known.line === line && known.from === from && known.to.includes(to))
}

function sum (counted: readonly Result[]): Result {
  const add = (key: Exclude<keyof Result, 'of'>) => counted.reduce((total, result) => total + result[key], 0)
  const mutants = add('mutants')
  const killed = add('killed')
  const timeout = add('timeout')
  return {
    mutants,
    killed,
    timeout,
    survived: add('survived'),
    noCoverage: add('noCoverage'),
    equivalent: add('equivalent'),
    score: percent(killed + timeout, mutants)
  }
}

class Results implements Reporter {
  onMutantTested (mutant: Mutant & { readonly fileName: string }): void {
    const name = relative(process.cwd(), mutant.fileName)
    if (!isOpen(mutant) || isKnown(name, mutant)) return
    const { line, from, to } = place(name, mutant)
    console.log(`${name}:${mutant.location.start.line} ${mutant.status}: ${line}\n  ${from}\n  -> ${to}`)
  }

  onMutationTestReportReady ({ files }: Report): void {
    const kept = existsSync(results) ? JSON.parse(readFileSync(results, 'utf8')) as { files: Record<string, Result> } : { files: {} }
    for (const [name, file] of Object.entries(files)) {
      const count = (status: Mutant['status']) => file.mutants.filter((mutant) => mutant.status === status).length
      const all = file.mutants.length - count('Ignored')
      const left = count('CompileError')
      const counted = sum([{
        mutants: all - left,
        killed: count('Killed'),
        timeout: count('Timeout'),
        survived: count('Survived'),
        noCoverage: count('NoCoverage'),
        equivalent: file.mutants.filter((mutant) => isOpen(mutant) && isKnown(name, mutant)).length,
        score: 0
      }])
      kept.files[name] = left === 0 ? counted : { ...counted, of: all }
    }
    const sorted = Object.fromEntries(Object.entries(kept.files).filter(([name]) => existsSync(name)).sort(([a], [b]) => a < b ? -1 : 1))
    const total = sum(Object.values(sorted))
    writeFileSync(results, `${JSON.stringify({ node: process.versions.node, files: sorted, total }, null, 2)}\n`)
    console.log('\nmutation of lib/:', total)
  }
}

export const strykerPlugins = [{ kind: 'Reporter', name: 'results', injectableClass: Results }]
