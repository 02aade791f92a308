import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { withChildren } from './child'
import { withVtoa, type Kernel } from './kernel'
import type { Row } from './report'
import type { Cores, Figure } from './figure'
import { estimate, median } from './statistics'
import type { Call, Slices } from './syscall-loop'

const SESSIONS = 12

const rows: ReadonlyArray<{ name: string, call: Call, answers: boolean, vtoa: boolean, target?: number }> = [
  { name: 'getpeername', call: 'getpeername', answers: true, vtoa: false, target: 1.35 },
  { name: '1348 failing', call: '1348', answers: false, vtoa: false, target: 1.35 },
  { name: '1348 answering', call: '1348', answers: true, vtoa: true },
  { name: '1349 failing beside the stand-in that answers 1348', call: '1349', answers: false, vtoa: true }
]

/** A system call through lib/kernel/libc ÷ the same call in a C loop, on the same socket in the same process. */
export const syscall: Figure = {
  name: 'syscall',
  title: 'the system call through koffi ÷ the C loop of the same call',
  async measure ({ sessions: count = SESSIONS, cores, progress }) {
    const folder = mkdtempSync(join(tmpdir(), 'fastify-real-ip-bench-'))
    try {
      const library = join(folder, 'loop.so')
      const problem = compile(library)
      if (problem !== undefined) return rows.map(({ name }) => ({ name, notShown: problem }))

      const bare = rows.filter((row) => !row.vtoa)
      const answering = rows.filter((row) => row.vtoa)
      const measured = await sessions(library, bare.map((row) => row.call), {}, count, cores, progress)
      const withModule = await withVtoa('v4', (kernel) =>
        sessions(library, answering.map((row) => row.call), kernel, count, cores, progress))
      return [
        ...bare.map((row, i) => toRow(row, measured[i] as Slices[])),
        ...answering.map((row, i) => typeof withModule === 'string'
          ? { name: row.name, notShown: withModule }
          : toRow(row, withModule[i] as Slices[]))
      ]
    } finally {
      rmSync(folder, { recursive: true })
    }
  }
}

/** Compiles loop.c; returns the error, if any. */
export function compile (library: string): string | undefined {
  const source = join(__dirname, '../../bench/loop.c')
  for (const compiler of ['cc', 'clang', 'gcc']) {
    const { error, status, stderr } = spawnSync(compiler, ['-O2', '-shared', '-fPIC', '-o', library, source])
    if (error !== undefined) continue
    return status === 0 ? undefined : `${compiler} failed: ${stderr}`
  }
  return 'there is no C compiler: install gcc or clang'
}

/** By call: the measurements of each fresh process. */
async function sessions (
  library: string, calls: Call[], kernel: Kernel, count: number, cores: Cores | undefined,
  progress: (done: string) => void
): Promise<Slices[][]> {
  const measured = calls.map((): Slices[] => [])
  for (let session = 0; session < count; session++) {
    progress(`${session + 1} of ${count} sessions`)
    await withChildren(async (fresh) => {
      const loop = await fresh('syscall-loop', [library], { core: cores?.server, cgroup: kernel.serverCgroup })
      const client = await fresh('client', [], { core: cores?.client, cgroup: kernel.clientCgroup })
      await client.ask('idle', { port: await loop.ask<number>('port'), host: '127.0.0.1', count: 1 })
      for (const [i, call] of calls.entries()) measured[i]?.push(await loop.ask<Slices>('measure', call))
    })
  }
  return measured
}

function toRow ({ name, answers, target }: typeof rows[number], slices: Slices[]): Row {
  const answered = slices.every(({ errno }) => errno === 0)
  if (answered !== answers) return { name, notShown: `the kernel ${answered ? 'answers' : 'does not answer'}` }
  return {
    name,
    value: estimate(slices.map(({ ratio }) => ratio)),
    control: estimate(slices.map(({ control }) => control)),
    ...(target !== undefined && { target }),
    absolute: { nanosecondsInC: median(slices.map(({ nanoseconds }) => nanoseconds)) }
  }
}
