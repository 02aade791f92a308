import t from 'tap'
import { execFileSync } from 'node:child_process'
import { closeSync, openSync } from 'node:fs'
import { errnoName, loadLibc, type Diag, type Libc } from '../lib/libc'
import { SOCKADDR_STORAGE } from '../lib/sockaddr'

const onLinux = { skip: process.platform !== 'linux' && 'not Linux' }

/** Run in a process with few descriptors, of which it takes all. */
function withoutDescriptors (): void {
  const libc = loadLibc() as Libc
  const taken: number[] = []
  try {
    for (;;) taken.push(openSync('/dev/null', 'r'))
  } catch {
    // EMFILE
  }
  let probed = false
  libc.withSocket(() => { probed = true })
  const diag = libc.openDiag()
  for (const fd of taken) closeSync(fd)
  console.log(JSON.stringify({ probed, diag: typeof diag === 'number' ? errnoName(diag) : 'a socket' }))
}

if (process.argv[2] === 'without descriptors') {
  withoutDescriptors()
} else {
  t.test('each call gives the errno of its failure, and leaves no bytes behind', onLinux, async (t) => {
    const libc = loadLibc() as Libc
    t.equal(errnoName(libc.getpeername(-1)), 'EBADF')
    t.equal(errnoName(libc.getsockname(-1)), 'EBADF')
    t.equal(errnoName(libc.getsockopt(-1, 0, 1348)), 'EBADF')
    t.equal(errnoName(libc.setsockopt(-1, 6, 27, 1)), 'EBADF')
    t.equal(libc.readSavedSyn(-1), 0)
    t.equal(errnoName(libc.getpeername(0x7fffffff)), 'EBADF')
    let seen
    libc.withSocket((fd) => { seen = errnoName(libc.getpeername(fd)) })
    t.equal(seen, 'ENOTCONN')
    t.same(libc.answer.subarray(0, 32), new Uint8Array(32))
    t.equal(libc.answer.length, SOCKADDR_STORAGE)
  })

  t.test('a netlink socket that is closed fails, and waits for nothing', onLinux, async (t) => {
    const diag = (loadLibc() as Libc).openDiag() as Diag
    t.ok(diag.receive() < 0, 'nothing to receive')
    diag.close()
    t.equal(errnoName(diag.send(16)), 'EBADF')
    t.equal(errnoName(-diag.receive()), 'EBADF')
  })

  t.test('without a descriptor left there is no socket, and no throw', onLinux, async (t) => {
    const output = execFileSync('/bin/sh', ['-c', 'ulimit -n 64 && exec "$@"', 'sh', process.execPath, __filename, 'without descriptors'])
    t.same(JSON.parse(String(output)), { probed: false, diag: 'EMFILE' })
  })

  t.test('an errno without a name keeps its number', async (t) => {
    t.equal(errnoName(4095), 'errno 4095')
  })
}
