import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

// The SYNs and the netlink answers are a real kernel's; all other inputs are written by hand, or were found by a run.

const CORPUS = join(dirname(require.resolve('fastify-real-ip/package.json')), 'test/fuzz/corpus')

export interface Entry {
  readonly name: string
  readonly input: Uint8Array
}

export function readCorpus (target: string): Entry[] {
  const directory = join(CORPUS, target)
  if (!existsSync(directory)) return []
  return readdirSync(directory).sort().map((name) => ({ name, input: readFileSync(join(directory, name)) }))
}

/** The new file's path. */
export function addToCorpus (target: string, input: Uint8Array): string {
  const path = join(CORPUS, target, `found-${createHash('sha256').update(input).digest('hex').slice(0, 8)}`)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, input)
  return path
}
