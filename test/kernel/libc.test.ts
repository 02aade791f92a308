import t from 'tap'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, openSync, readdirSync } from 'node:fs'
import net from 'node:net'
import { endianness } from 'node:os'
import { errnoName } from '../../lib/kernel/errno'
import { type Capture, loadLibc, openCapture, type Diag, type Libc } from '../../lib/kernel/libc'
import { SOCKADDR_STORAGE } from '../../lib/kernel/sockaddr'

const onLinux = { skip: process.platform !== 'linux' && 'not Linux' }

/** Classic BPF, <linux/filter.h>: struct sock_filter { u16 code, u8 jump if true, u8 jump if false, u32 k }, byte order ours. */
function assemble (...program: Array<[code: number, yes: number, no: number, k: number]>): Uint8Array {
  const view = new DataView(new ArrayBuffer(program.length * 8))
  program.forEach(([code, yes, no, k], i) => {
    view.setUint16(i * 8, code, endianness() === 'LE')
    view.setUint8(i * 8 + 2, yes)
    view.setUint8(i * 8 + 3, no)
    view.setUint32(i * 8 + 4, k, endianness() === 'LE')
  })
  return new Uint8Array(view.buffer)
}

const [LOAD_BYTE, LOAD_HALF, IF_EQUAL, RETURN] = [0x30, 0x28, 0x15, 0x06]
const every = assemble([RETURN, 0, 0, 0xffff])
const none = assemble([RETURN, 0, 0, 0])
/** IPv4 to this port: what others send must not fill the socket's buffer. */
const to = (port: number) => assemble(
  [LOAD_BYTE, 0, 0, 0], [IF_EQUAL, 0, 3, 0x45], [LOAD_HALF, 0, 0, 22], [IF_EQUAL, 0, 1, port], [RETURN, 0, 0, 0xffff], [RETURN, 0, 0, 0]
)

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
  const capture = openCapture(every)
  for (const fd of taken) closeSync(fd)
  const nameOf = (opened: object | number) => typeof opened === 'number' ? errnoName(opened) : 'a socket'
  console.log(JSON.stringify({ probed, diag: nameOf(diag), capture: nameOf(capture) }))
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
    t.equal(errnoName(-libc.peek(0x7fffffff)), 'EBADF')
    t.equal(errnoName(-libc.drop(0x7fffffff, 1)), 'EBADF')
    let seen
    libc.withSocket((fd) => { seen = errnoName(libc.getpeername(fd)) })
    t.equal(seen, 'ENOTCONN')
    t.same(libc.bytes.subarray(0, 32), new Uint8Array(32))
    t.equal(libc.bytes.length, SOCKADDR_STORAGE)
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
    const { capture, ...others } = JSON.parse(String(output))
    t.same(others, { probed: false, diag: 'EMFILE' })
    t.match(capture, /^(EMFILE|EPERM)$/, 'whoever may not capture hears of that first')
  })

  t.test('each errno has one name, and without one keeps its number', async (t) => {
    t.equal(errnoName(4095), 'errno 4095')
    if (process.platform === 'linux') t.equal(errnoName(95), 'EOPNOTSUPP', 'not ENOTSUP')
  })

  t.test('what is opened is closed', onLinux, async (t) => {
    const libc = loadLibc() as Libc
    const open = () => readdirSync('/proc/self/fd').length
    const before = open()
    libc.withSocket(() => t.equal(open(), before + 1))
    t.equal(open(), before)
    t.throws(() => libc.withSocket(() => { throw new Error('a probe') }), /a probe/)
    t.equal(open(), before)
    const diag = libc.openDiag() as Diag
    t.equal(open(), before + 1)
    diag.close()
    t.equal(open(), before)
    const capture = openCapture(every)
    t.teardown(() => { if (typeof capture === 'object') capture.close() })
    if (typeof capture === 'number') return t.pass(`no capture: ${errnoName(capture)}`)
    t.equal(open(), before + 1)
    capture.close()
    t.equal(open(), before)
  })

  t.test('descriptor 0 is one like any other', onLinux, async (t) => {
    const libc = loadLibc() as Libc
    closeSync(0)
    let probed: number | undefined
    libc.withSocket((fd) => { probed = fd })
    const diag = libc.openDiag()
    if (typeof diag === 'object') diag.close()
    const capture = openCapture(every)
    if (typeof capture === 'object') capture.close()
    t.equal(openSync('/dev/null', 'r'), 0)
    t.equal(probed, 0)
    t.type(diag, 'object')
    t.ok(typeof capture === 'object' || errnoName(capture) === 'EPERM')
  })

  t.test('a capture has the packets that its filter lets pass, and no others', onLinux, async (t) => {
    const server = net.createServer((socket) => { socket.end() }).listen(0, '127.0.0.1')
    t.teardown(() => server.close())
    await once(server, 'listening')
    const { port } = server.address() as net.AddressInfo
    const captures = [to(port), none].map(openCapture)
    t.teardown(() => { for (const capture of captures) if (typeof capture === 'object') capture.close() })
    if (captures.some((capture) => typeof capture === 'number')) return t.pass('no capture here')
    const client = net.connect(port, '127.0.0.1').resume()
    await once(client, 'close')
    const ports = captures.map((capture) => {
      const { packet, receive } = capture as Capture
      const ports: number[] = []
      for (let length = receive(); length > 0; length = receive()) ports.push(new DataView(packet.buffer).getUint16(22))
      return ports
    })
    t.ok(ports[0]!.length > 2, `${ports[0]!.length} packets`)
    t.same(new Set(ports[0]), new Set([port]))
    t.same(ports[1], [])
  })
}
