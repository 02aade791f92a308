import { spawnSync } from 'node:child_process'
import { appendFileSync, cpSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

// The coverage gate must fail on code that never ran. In a copy of the project three canaries are added to lib/: a
// function nobody calls, a branch nobody takes, and a file nobody imports. The gate must name each.

const project = join(__dirname, '../../..')
const copy = mkdtempSync(join(tmpdir(), 'fastify-real-ip-canary-'))
const apart = new Set(['.git', '.tap', 'dist', 'node_modules'])

function run (...command: string[]): { status: number | null, stdout: string } {
  const { status, stdout } = spawnSync(process.execPath, command, {
    cwd: copy, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit']
  })
  return { status, stdout }
}

function must (...command: string[]): void {
  const { status, stdout } = run(...command)
  if (status !== 0) throw new Error(`${command.join(' ')} failed\n${stdout}`)
}

try {
  for (const name of readdirSync(project)) {
    if (!apart.has(name)) cpSync(join(project, name), join(copy, name), { recursive: true })
  }
  symlinkSync(join(project, 'node_modules'), join(copy, 'node_modules'))
  appendFileSync(join(copy, 'lib/errors.ts'), [
    'export function canaryFunction (): number { return 1 }',
    'export const canaryBranch = process.pid < 0 ? Number(1) : Number(2)',
    ''
  ].join('\n'))
  writeFileSync(join(copy, 'lib/canary.ts'), 'export const canary = 1\n')

  must('node_modules/typescript/bin/tsc', '-p', 'tsconfig.json')
  must('node_modules/tap/dist/esm/run.mjs', 'run', 'dist/test/package/exports.test.js')

  const { status, stdout } = run('dist/test/gates/coverage.js')
  const gaps = stdout.split('\n')
  const missed = [
    /^lib\/errors\.ts:\d+ never ran: export function canaryFunction/,
    /^lib\/errors\.ts:\d+ never ran: export const canaryBranch/,
    /^lib\/canary\.ts was never loaded$/
  ].filter((canary) => !gaps.some((gap) => canary.test(gap)))
  for (const canary of missed) console.log(`the coverage gate does not see ${canary}`)
  if (status === 0) console.log('the coverage gate passes code that never ran')
  process.exitCode = status === 1 && missed.length === 0 ? 0 : 1
} finally {
  rmSync(copy, { recursive: true })
}
