// Run by doctor as a child process, which survives an abort in a native library.

import { loadLibc } from '../kernel/libc'

const libc = loadLibc()
if (typeof libc === 'string') {
  process.stdout.write(libc)
  process.exitCode = 1
}
