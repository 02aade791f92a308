// The system calls of `attach`, one of which goes wrong.

import { constants } from 'node:os'
import type { Bpf } from '../../lib/kernel/libc'

/** Does `instead` in place of the call number `at`, counted from 1; 0: of none. */
export function faulty (bpf: Bpf, at: number, instead: () => number): Bpf & { readonly calls: () => number } {
  let calls = 0
  return {
    bpf: (...given) => ++calls === at ? instead() : bpf.bpf(...given),
    flock: (...given) => ++calls === at ? instead() : bpf.flock(...given),
    unlimitLockedMemory: () => bpf.unlimitLockedMemory(),
    calls: () => calls
  }
}

export const fails = (errno: keyof typeof constants.errno) => () => -constants.errno[errno]

export function dies (): number {
  process.kill(process.pid, 'SIGKILL')
  return 0
}
