import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import t from 'tap'
import { clangVersion, generate, PROGRAMS, sourceHash } from '../../bpf/generate'

const shipped = readFileSync(PROGRAMS, 'utf8')

t.test('the shipped programs are of this source', async (t) => {
  t.match(shipped, `Source: SHA-256 ${sourceHash()}`, 'npm run bpf writes them anew')
})

const missing = process.platform !== 'linux' || spawnSync('clang', ['--version']).status !== 0 ? 'needs clang' : otherClang()

/** Another compiler makes other instructions of the same source. */
function otherClang (): string | false {
  const used = /Compiled with clang (\S+),/.exec(shipped)?.[1]
  return used !== clangVersion() && `the programs were compiled with clang ${used}, this is ${clangVersion()}`
}

t.test('compiled afresh they are the same, byte for byte', { skip: missing }, async (t) => {
  t.equal(generate(), shipped)
})
