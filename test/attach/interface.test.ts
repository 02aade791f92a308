import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { text } from 'node:stream/consumers'
import Fastify from 'fastify'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { errnoName } from '../../lib/kernel/errno'
import { fdOf } from '../../lib/node/sockets'
import { listen as listenFastify } from '../kinds'
import { derivedAddress, type Stamp } from '../lab/lab'
import { ask1348, connect, inAttachLab, listen, visit } from './attach-lab'

const IPPROTO_IP = 0
const IPPROTO_TCP = 6
const TCP_INFO = 11
const UNTOUCHED = 0xee

const root = dirname(require.resolve('fastify-real-ip/package.json'))

/** getsockopt(2) with any buffer: what it returned, and what is in the buffer then. */
function getsockopt (socket: Socket, level: number, optname: number, length: number) {
  const { getsockopt, errno } = systemCalls()
  const buffer = Buffer.alloc(length, UNTOUCHED)
  const optlen = [length]
  const result = getsockopt(fdOf(socket), level, optname, buffer, optlen)
  return { error: result === 0 ? undefined : errnoName(errno()), buffer, optlen: optlen[0] as number }
}

function systemCalls () {
  const koffi = require('koffi') as typeof import('koffi', { with: { 'resolution-mode': 'import' } })
  const libc = koffi.load(null)
  return {
    getsockopt: libc.func('int getsockopt(int, int, int, _Inout_ uint8_t *, _Inout_ uint32_t *)'),
    socket: libc.func('int socket(int, int, int)'),
    errno: () => koffi.errno()
  }
}

inAttachLab(__filename, {
  async 'stamped clients, and what has no TOA' (t, { attach, lab }) {
    attach()
    const client = await lab.client()
    for (const [host, at] of [['127.0.0.1', '127.0.0.1'], ['::1', '::1'], ['127.0.0.1', '::'], ['::1', '::']] as const) {
      let socket = await connect(t, client, {}, host, at)
      t.equal(ask1348(socket), `${derivedAddress(socket.clientPort)} ${socket.clientPort}`, `IPv4, ${host} at ${at}`)
      t.equal(ask1348(socket), `${derivedAddress(socket.clientPort)} ${socket.clientPort}`, 'as often as asked')
      socket = await connect(t, client, { derive: 'v6' }, host, at)
      t.equal(ask1348(socket), `${derivedAddress(socket.clientPort, 'v6')} ${socket.clientPort}`, `IPv6, ${host} at ${at}`)
      t.equal(ask1348(await connect(t, client, null, host, at)), 'ESRCH')
    }
  },

  async 'the sample program of the document' (t, { attach, lab }) {
    attach()
    const folder = mkdtempSync(join(tmpdir(), 'fastify-real-ip-sample-'))
    t.teardown(() => { rmSync(folder, { recursive: true }) })
    const program = join(folder, 'sample')
    execFileSync('clang', ['-Wall', '-Werror', '-o', program, join(root, 'test', 'attach', 'sample.c')])
    const client = await lab.client()
    const run = async (socket: Socket) => {
      const child = spawn(program, { stdio: [socket, 'pipe', 'inherit'] })
      return await text(child.stdout!)
    }
    t.equal(await run(await connect(t, client, { address: '203.0.113.7', port: 51234 })), '203.0.113.7 51234')
    t.equal(await run(await connect(t, client, { address: '2001:db8::7' })), 'Invalid argument', 'IPv6 takes a longer buffer')
    t.equal(await run(await connect(t, client, null)), 'No such process')
  },

  async 'buffers of any length' (t, { attach, lab }) {
    attach()
    const client = await lab.client()
    const sockets = {
      16: await connect(t, client, { address: '203.0.113.7', port: 0x0102 }),
      28: await connect(t, client, { address: '2001:db8::7', port: 0x0102 })
    }
    const answers = {
      16: '02000102cb007107' + '00'.repeat(8),
      28: '0a000102' + '00000000' + '20010db8' + '00'.repeat(11) + '07' + '00000000'
    }
    for (const need of [16, 28] as const) {
      for (const length of [0, 1, need - 1]) t.equal(getsockopt(sockets[need], IPPROTO_IP, 1348, length).error, 'EINVAL', `${length} bytes`)
      for (const length of [need, need + 1, 128, 4096, 4097, 65536]) {
        const { error, buffer, optlen } = getsockopt(sockets[need], IPPROTO_IP, 1348, length)
        t.equal(error, undefined, `${length} bytes`)
        t.equal(optlen, need, 'the length is written back')
        t.equal(buffer.toString('hex', 0, need), answers[need])
        t.ok(buffer.subarray(need).every((byte) => byte === UNTOUCHED), 'and nothing behind it')
      }
    }
    const none = await connect(t, client, null)
    for (const length of [0, 16, 4097, 65536]) t.equal(getsockopt(none, IPPROTO_IP, 1348, length).error, 'ESRCH', `${length} bytes`)
  },

  async 'other calls are as they were' (t, lab) {
    const client = await lab.lab.client()
    const socket = await connect(t, client, {})
    const IP_TTL = 2
    const calls = [
      [IPPROTO_TCP, TCP_INFO, 65536], [IPPROTO_TCP, TCP_INFO, 4096], [IPPROTO_TCP, TCP_INFO, 8], [IPPROTO_IP, IP_TTL, 4],
      [IPPROTO_IP, IP_TTL, 65536], [IPPROTO_IP, 1349, 128], [IPPROTO_IP, 1349, 65536], [IPPROTO_TCP, 1348, 128], [41, 1348, 128]
    ] as const
    const ask = () => calls.map(([level, optname, length]) => {
      const { error, buffer, optlen } = getsockopt(socket, level, optname, length)
      // TCP_INFO has clocks in it.
      return { error, optlen, buffer: level === IPPROTO_TCP ? buffer.length : buffer.toString('hex') }
    })
    const before = ask()
    lab.attach({ getpeername: true })
    t.same(ask(), before)
    t.equal(before[0]?.error, undefined)
    t.equal(ask1348(socket), 'ESRCH', 'made before attach')

    for (const [what, type] of [['TCP', 1], ['UDP', 2]] as const) {
      const fd = systemCalls().socket(2, type, 0)
      t.teardown(() => { closeSync(fd) })
      t.equal(ask1348(fd), what === 'TCP' ? 'ESRCH' : 'ENOPROTOOPT', `${what}, not connected`)
    }
    lab.detach()
    t.equal(ask1348(socket), 'ENOPROTOOPT')
    t.same(ask(), before)
  },

  async 'sockets belong to the cgroup that they were made in' (t, { attach, lab, cgroup, newCgroup }) {
    attach()
    const outside = newCgroup(t)
    const client = await lab.client()
    const enter = (cgroup: string) => { writeFileSync(join(cgroup, 'cgroup.procs'), String(process.pid)) }
    t.teardown(() => { enter(cgroup) })
    const server = await listen(t)
    enter(outside)
    client.set({ address: '203.0.113.7', port: 1 })
    t.equal(ask1348(await visit(t, client, server)), '203.0.113.7 1', 'the listener is of the cgroup, the process no more')
    enter(outside)
    t.equal(ask1348(await connect(t, client, {})), 'ENOPROTOOPT', 'a listener made outside')
    enter(cgroup)
  },

  async 'getpeername only on request' (t, { attach, lab }) {
    const client = await lab.client()
    const v4 = { address: '203.0.113.7', port: 9 }
    const name = ({ remoteAddress, remotePort }: Socket) => `${remoteAddress} ${remotePort}`
    attach()
    t.equal((await connect(t, client, v4)).remoteAddress, '127.0.0.1')
    attach({ getpeername: true })
    t.equal(name(await connect(t, client, v4)), '203.0.113.7 9')
    t.equal(name(await connect(t, client, v4, '127.0.0.1', '::')), '::ffff:203.0.113.7 9')
    t.equal(name(await connect(t, client, v4, '::1')), '::ffff:203.0.113.7 9')
    t.equal(name(await connect(t, client, { address: '2001:db8::7', port: 9 }, '::1')), '2001:db8::7 9')
    t.equal((await connect(t, client, { address: '2001:db8::7' })).remoteAddress, '127.0.0.1', 'no room for IPv6')
    t.equal((await connect(t, client, null)).remoteAddress, '127.0.0.1')
    t.equal((await connect(t, client, null, '::1')).remoteAddress, '::1')
    attach()
    t.equal((await connect(t, client, v4)).remoteAddress, '127.0.0.1')
  },

  async 'a vtoa that is there already' (t, { attach, lab }) {
    const client = await lab.client()
    lab.module.start({ getpeername: false })
    // Reads 200/8, which that vtoa does not, and nothing that it does.
    attach({ formats: [{ kind: 200, length: 8, family: 'IPv4' }] })
    t.equal(ask1348(await connect(t, client, { address: '203.0.113.7', port: 1 })), '203.0.113.7 1', 'its answer')
    t.equal(ask1348(await connect(t, client, { address: '203.0.113.8', port: 2, kind: 200 })), '203.0.113.8 2', 'ours')
    t.equal(ask1348(await connect(t, client, null)), 'ESRCH')
    // Both read it.
    attach()
    const socket = await connect(t, client, { address: '203.0.113.9', port: 3 })
    t.equal(ask1348(socket), '203.0.113.9 3')
    t.equal(getsockopt(socket, IPPROTO_IP, 1348, 15).error, 'EINVAL')
    lab.module.fault({ errno: 'EIO' })
    t.equal(ask1348(socket), '203.0.113.9 3', 'theirs fails')
    t.equal(ask1348(await connect(t, client, null)), 'EIO', 'and is not hidden')
    lab.module.stop()
    t.equal(ask1348(socket), '203.0.113.9 3')
  },

  async 'nested cgroups: the claim of either answers' (t, { attach, detach, lab, cgroup }) {
    const parent = dirname(cgroup)
    const client = await lab.client()
    attach({ cgroup: parent, formats: [{ kind: 200, length: 8, family: 'IPv4' }] })
    t.teardown(() => { detach(parent) })
    attach()
    const inner = await connect(t, client, { address: '203.0.113.7', port: 1 })
    const outer = await connect(t, client, { address: '203.0.113.8', port: 2, kind: 200 })
    t.equal(ask1348(inner), '203.0.113.7 1')
    t.equal(ask1348(outer), '203.0.113.8 2')
    t.equal(ask1348(await connect(t, client, null)), 'ESRCH')
    detach()
    t.equal(ask1348(inner), 'ESRCH')
    t.equal(ask1348(outer), '203.0.113.8 2')
  },

  async "the plugin finds it as 'vtoa', and checks the sender itself" (t, lab) {
    const client = await lab.lab.client()
    const ask = async (options: FastifyRealIpOptions, stamp: Stamp | null) => {
      const app = Fastify()
      await app.register(realIp, options)
      app.get('/', ({ realAddress: { address, port, source, trust, reason } }) => ({ address, port, source, trust, reason }))
      t.teardown(() => app.close())
      const port = await listenFastify(app)
      client.set(stamp)
      const { stdout } = await client.run(process.execPath, ['-e', `fetch('http://127.0.0.1:${port}/').then(async (r) => console.log(await r.text()))`])
      return JSON.parse(stdout)
    }
    const stamp = { address: '203.0.113.7', port: 51234 }
    const claim = { address: '203.0.113.7', port: 51234, source: 'vtoa' }
    lab.attach({ trustedPeers: ['127.0.0.1'] })
    t.match(await ask({}, stamp), { ...claim, trust: 'unchecked' })
    t.match(await ask({ trustedPeers: ['127.0.0.1'] }, stamp), { ...claim, trust: 'trusted' })
    t.match(await ask({ trustedPeers: ['10.0.0.1'] }, stamp), { address: '127.0.0.1', trust: 'untrusted', reason: 'untrusted-peer' })
    t.match(await ask({ trustedPeers: ['127.0.0.1'] }, null), { address: '127.0.0.1', trust: 'trusted', reason: 'no-toa' })
    // The kernel hides a stranger's claim from the plugin, which believes this peer.
    lab.attach({ trustedPeers: ['10.0.0.1'] })
    t.match(await ask({ trustedPeers: ['127.0.0.1'] }, stamp), { address: '127.0.0.1', trust: 'trusted', reason: 'no-toa' })
    t.match(lab.attachment()?.counters, { strangers: 1 })
  },

  async 'an unprivileged process is served' (t, { attach, cgroup, lab }) {
    attach()
    const missing = spawnSync('setpriv', ['--version']).status !== 0
    if (missing) throw new Error('this test needs setpriv(1)')
    const client = await lab.client()
    client.set({ address: '203.0.113.7', port: 51234 })
    const server = spawn('sh', ['-c', 'echo $$ > "$0" && exec env -i setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set -all "$@"',
      join(cgroup, 'cgroup.procs'), process.execPath, join(__dirname, 'answer-once.js')],
    // env -i: tap makes every process write files where this one may not.
    { stdio: ['pipe', 'pipe', 'inherit'] })
    t.teardown(() => { server.kill('SIGKILL') })
    const [port] = await once(server.stdout!.setEncoding('utf8'), 'data') as [string]
    const { stdout } = await client.run(process.execPath, ['-e', `require('net').connect(${Number(port)}, '127.0.0.1').pipe(process.stdout)`])
    t.equal(stdout, '65534: 203.0.113.7 51234')
  }
})
