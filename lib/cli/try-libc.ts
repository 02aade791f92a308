// Run by the doctor in a process of its own: nothing else survives a native library that aborts.

import { loadLibc } from '../kernel/libc'

const libc = loadLibc()
if (typeof libc === 'string') {
  process.stdout.write(libc)
  process.exitCode = 1
}
