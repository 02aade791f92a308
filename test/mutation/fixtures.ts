import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

// Preloaded into each test: fixtures of its own, for the same test may run beside it, or have been ended before.

if (!process.env.TAP_CWD?.includes('mutation-')) {
  const directory = process.env.TAP_CWD = mkdtempSync(join(tmpdir(), 'mutation-'))
  process.on('exit', () => { rmSync(directory, { recursive: true, force: true }) })
}
