// Runs as the first program of an emulated machine with another kernel: kernels.ts starts it. Prints a line for each check,
// and a last one with the sums.

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdirSync, writeFileSync } from 'node:fs'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { release } from 'node:os'
import { join } from 'node:path'
import type { AttachRequest } from '../../lib/attach/attaching'
import { attach, detach } from '../../lib/attach/companion'
import { documentFormats } from '../../lib/attach/config'
import { kernelBefore } from '../../lib/attach/explain'
import { status } from '../../lib/attach/status'
import { errnoName } from '../../lib/kernel/errno'
import { type Bpf, openBpf } from '../../lib/kernel/libc'
import { fdOf } from '../../lib/node/sockets'
import { loadBpf } from '../lab/bpf'
import { derivedAddress, encodeStamp, type Stamp } from '../lab/stamp'
import { ask1348 } from './ask'

const [connections = '200'] = process.argv.slice(2)
const bpffs = '/sys/fs/bpf'
const server = '/sys/fs/cgroup/server'
const client = '/sys/fs/cgroup/client'
const old = kernelBefore(release(), 5, 18)
const none = old ? 'EPERM' : 'ESRCH'
const short = old ? 'EPERM' : 'EINVAL'
let passed = 0
let failed = 0

function check (what: string, got: unknown, wanted: unknown): void {
  const right = got === wanted
  if (right) passed++
  else failed++
  if (!right || !what.startsWith('load')) console.log(`${right ? 'ok' : 'not ok'} - ${what}: ${String(got)}${right ? '' : `, not ${String(wanted)}`}`)
}

const enter = (cgroup: string) => { writeFileSync(join(cgroup, 'cgroup.procs'), String(process.pid)) }

async function listen (host: string): Promise<Server & { port: number }> {
  enter(server)
  const listening = createServer().listen(0, host)
  await once(listening, 'listening')
  return Object.assign(listening, { port: (listening.address() as AddressInfo).port })
}

async function visit (listening: Server & { port: number }, host: string): Promise<{ socket: Socket, port: number, end: () => Promise<void> }> {
  enter(client)
  const accepted = once(listening, 'connection') as Promise<[Socket]>
  const socket = connect(listening.port, host)
  await once(socket, 'connect')
  const [peer] = await accepted
  return {
    socket: peer,
    port: socket.localPort as number,
    async end () {
      const closed = [once(socket, 'close'), once(peer, 'close')]
      socket.destroy()
      peer.destroy()
      await Promise.all(closed)
    }
  }
}

function getsockopt (fd: number, level: number, optname: number, length: number): string {
  const koffi = require('koffi') as typeof import('koffi', { with: { 'resolution-mode': 'import' } })
  const call = koffi.load(null).func('int getsockopt(int, int, int, _Inout_ uint8_t *, _Inout_ uint32_t *)')
  return call(fd, level, optname, Buffer.alloc(length), [length]) === 0 ? 'answered' : errnoName(koffi.errno())
}

async function main (): Promise<void> {
  console.log(`# Linux ${release()}`)
  for (const cgroup of [server, client]) mkdirSync(cgroup)
  const bpf = openBpf() as Bpf
  const request: AttachRequest = {
    cgroup: server, bpffs, version: 'guest', verbose: true, trustedPeers: ['127.0.0.0/8', '::1'], formats: documentFormats, getpeername: true
  }
  const stamps = loadBpf('stamp.bpf.c', client)
  const set = (stamp: Stamp | null) => { stamps.update('stamp_map', encodeStamp(stamp)) }
  stamps.attach()

  const { log } = attach(bpf, request)
  for (const line of log.match(/^(toa_\w+:|processed .*)$/gm) ?? []) console.log(`# ${line}`)
  for (const host of ['127.0.0.1', '::1']) {
    for (const at of [host, '::']) {
      const listening = await listen(at)
      for (const derive of ['v4', 'v6'] as const) {
        set({ derive })
        const { socket, port, end } = await visit(listening, host)
        check(`${derive}, ${host} at ${at}`, ask1348(socket), `${derivedAddress(port, derive)} ${port}`)
        check('a short buffer', getsockopt(fdOf(socket), 0, 1348, 15), short)
        check('a long one', getsockopt(fdOf(socket), 0, 1348, 65536), 'answered')
        check('TCP_INFO into 64 KiB', getsockopt(fdOf(socket), 6, 11, 65536), 'answered')
        check('1349 of 64 KiB', getsockopt(fdOf(socket), 0, 1349, 65536), 'ENOPROTOOPT')
        const named = derive === 'v4' ? `${at.includes(':') ? '::ffff:' : ''}${derivedAddress(port)}` : undefined
        if (named !== undefined) check('getpeername', socket.remoteAddress, named)
        await end()
      }
      set(null)
      const { socket, end } = await visit(listening, host)
      for (const length of [0, 15, 128, 65536]) check(`without TOA, ${length} bytes`, getsockopt(fdOf(socket), 0, 1348, length), none)
      await end()
      listening.close()
    }
  }
  const listening = await listen('127.0.0.1')
  set({})
  attach(bpf, { ...request, trustedPeers: ['10.0.0.1'], getpeername: false })
  let { socket, end, port } = await visit(listening, '127.0.0.1')
  check('a stranger', ask1348(socket), none)
  check('getpeername given up', socket.remoteAddress, '127.0.0.1')
  await end()

  // Replaced by another process while connections are made.
  let replacing = true
  let replaced = 0
  attach(bpf, { ...request, getpeername: false })
  const replacements = (async () => {
    while (replacing) {
      const child = spawn(process.execPath, [join(__dirname, '../../lib/cli/bin.js'), 'attach', '--cgroup', server, '--trusted-peers', ['any', '127.0.0.1'][replaced % 2] as string],
        { stdio: ['ignore', 'ignore', 'inherit'] })
      const [code] = await once(child, 'exit')
      check('load: attach', code, 0)
      replaced++
    }
  })()
  for (let i = 0; i < Number(connections) || replaced < 3; i++) {
    ({ socket, end, port } = await visit(listening, '127.0.0.1'))
    check('load: a claim', ask1348(socket), `${derivedAddress(port)} ${port}`)
    await end()
  }
  replacing = false
  await replacements
  console.log(`# ${replaced} replacements`)

  const [attachment] = status(bpf, bpffs)
  check('status', attachment?.state, 'attached')
  check('claims are counted', (attachment?.counters?.claims ?? 0) >= Number(connections), true)
  detach(bpf, { cgroup: server }, bpffs);
  ({ socket, end } = await visit(listening, '127.0.0.1'))
  check('detached', ask1348(socket), 'ENOPROTOOPT')
  await end()
  listening.close()
  stamps.close()
  console.log(`# passed ${passed}, failed ${failed}`)
}

main().catch((error) => { console.log(`not ok - ${(error as Error).stack} ${(error as { log?: string }).log?.slice(-2000) ?? ''}`) })
