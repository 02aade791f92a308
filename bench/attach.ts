import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import type { Cgroups, Measured } from './attach-loop'
import { withChildren } from './child'
import { withLab } from './kernel'
import type { Row } from './report'
import type { Cores, Figure } from './figure'
import { estimate } from './statistics'
import { compile } from './syscall'

const SESSIONS = 8

const rows: ReadonlyArray<{ what: keyof Measured['ratios'], name: string, target?: number }> = [
  { what: 'answered', name: '1348 answered ÷ 1348 failing on a bare kernel' },
  { what: 'without-toa', name: '1348 of a connection without TOA ÷ 1348 failing on a bare kernel' },
  { what: 'same-cgroup', name: 'another getsockopt of the cgroup, with ÷ without' },
  { what: 'other-cgroup', name: 'another getsockopt of another cgroup, with ÷ without' },
  { what: 'connection', name: 'a connection with TOA, with ÷ without', target: 1.10 },
  { what: 'list', name: 'a connection with TOA, a list of 1,000 ÷ of ten', target: 1.05 }
]

const MOUNT = 'mount -t bpf bpf /sys/fs/bpf && exec "$@"'
const before = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', MOUNT, 'sh']

/** The cost of `attach`: system calls and connections in C, interleaved in one process. */
export const attach: Figure = {
  name: 'attach',
  title: 'attach: a system call or a loopback connection with ÷ without',
  async measure ({ sessions: count = SESSIONS, cores, progress }) {
    const folder = mkdtempSync(join(tmpdir(), 'fastify-real-ip-bench-'))
    try {
      const library = join(folder, 'loop.so')
      const measured = compile(library) ?? await withLab(async (lab) => {
        const client = (await lab.client({ derive: 'v4' })).cgroup
        const silent = (await lab.client(null)).cgroup
        const made = (name: string) => {
          const path = join(dirname(lab.serverCgroup), name)
          mkdirSync(path)
          return path
        }
        const cgroups = { attached: lab.serverCgroup, bare: made('bare'), thousand: made('thousand'), client, silent }
        return await sessions(library, cgroups, count, cores, progress)
      })
      if (typeof measured === 'string') return rows.map(({ name }) => ({ name, notShown: measured }))
      return rows.map(({ what, name, target }): Row => ({
        name,
        value: estimate(measured.map(({ ratios }) => ratios[what])),
        control: estimate(measured.map(({ controls }) => controls[what])),
        ...(target !== undefined && { target })
      }))
    } finally {
      rmSync(folder, { recursive: true })
    }
  }
}

async function sessions (
  library: string, cgroups: Cgroups, count: number, cores: Cores | undefined, progress: (done: string) => void
): Promise<Measured[]> {
  const measured: Measured[] = []
  for (let session = 0; session < count; session++) {
    progress(`${session + 1} of ${count} sessions`)
    await withChildren(async (fresh) => {
      const loop = await fresh('attach-loop', [library], { core: cores?.server, cgroup: cgroups.bare, before })
      measured.push(await loop.ask<Measured>('measure', cgroups))
    })
  }
  return measured
}
