// What a Node.js in question can do: of another architecture, under an emulator. Fails where an answer is wrong, and
// prints as JSON what it saw. Beside dist/lib alone, as the package ships, it needs nothing but fastify, and clients'
// addresses of its own, 198.51.100.0/24: a loopback address is believed only where sock_diag(7) is there to prove it.
import { strictEqual } from 'node:assert'
import { once } from 'node:events'
import http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import { isMainThread, parentPort, Worker } from 'node:worker_threads'
import Fastify, { type FastifyInstance } from 'fastify'
import realIp, { type FastifyRealIpOptions, type RealAddress } from 'fastify-real-ip'
import { formatAddress } from '../../lib/address/address'
import { errnoName } from '../../lib/kernel/errno'
import { loadLibc, type Libc } from '../../lib/kernel/libc'
import { decodeSavedSyn } from '../../lib/kernel/tcp-header'
import { AF_INET, AF_INET6 } from '../../lib/kernel/constants'
import { createEndpoint, decodeSockaddr } from '../../lib/kernel/sockaddr'

// <linux/in.h>, <asm-generic/socket.h>, <linux/tcp.h>
const IPPROTO_IP = 0
const SOL_SOCKET = 1
const IPPROTO_TCP = 6
const SO_TYPE = 3
const TCP_SAVE_SYN = 27
const VTOA = 1348

/** A SYN that a kernel saved, and who had sent it. */
export interface Saved {
  readonly syn: string
  readonly sender: string
}

export interface Seen {
  readonly node: string
  readonly arch: string
  readonly libc: string
  /** Each check that passed, with what was seen. */
  readonly checks: Readonly<Record<string, string>>
}

const endpoint = createEndpoint()
const text = () => `${formatAddress(endpoint)} ${endpoint.port}`

function decodeSockaddrs (): string {
  const ipv4 = Uint8Array.of(0, 0, 0xc8, 0x07, 203, 0, 113, 7)
  decodeSockaddr(new DataView(ipv4.buffer), AF_INET, endpoint)
  strictEqual(text(), '203.0.113.7 51207')
  const ipv6 = new Uint8Array(28)
  ipv6.set([0xc8, 0x07], 2)
  ipv6.set([0x20, 0x01, 0x0d, 0xb8], 8)
  ipv6[23] = 7
  decodeSockaddr(new DataView(ipv6.buffer), AF_INET6, endpoint)
  strictEqual(text(), '2001:db8::7 51207')
  return 'IPv4 and IPv6 are decoded'
}

function decodeSyns (saved: Saved[]): string {
  for (const { syn, sender } of saved) {
    const bytes = Buffer.from(syn, 'hex')
    strictEqual(decodeSavedSyn(bytes, bytes.length, endpoint), true)
    strictEqual(text(), sender)
  }
  return `${saved.length} that a kernel saved are decoded`
}

async function callKernel (): Promise<Record<string, string>> {
  const libc = loadLibc()
  if (typeof libc === 'string') throw new Error(libc)
  const fdOf = (handle: object) => (handle as { _handle: { fd: number } })._handle.fd
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  strictEqual(libc.setsockopt(fdOf(server), IPPROTO_TCP, TCP_SAVE_SYN, 1), 0)
  const accepting = once(server, 'connection')
  const client = net.connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', localAddress: '198.51.100.60' })
  const [accepted] = await accepting as [net.Socket]
  const fd = fdOf(accepted)
  try {
    strictEqual(libc.getpeername(fd), 0)
    decodeSockaddr(libc.sockaddr, libc.family(), endpoint)
    strictEqual(text(), `198.51.100.60 ${client.localPort}`)
    strictEqual(errnoName(libc.getpeername(-1)), 'EBADF')
    strictEqual(libc.getsockopt(fd, SOL_SOCKET, SO_TYPE), 0)
    strictEqual(new Int32Array(libc.bytes.buffer, libc.bytes.byteOffset, 1)[0], 1)
    strictEqual(errnoName(libc.getsockopt(-1, SOL_SOCKET, SO_TYPE)), 'EBADF')
    // qemu's own answer where it emulates: the kernel is not asked.
    strictEqual(errnoName(libc.getsockopt(fd, IPPROTO_IP, VTOA)), 'ENOPROTOOPT')
    return {
      getpeername: "gives a connection's other end",
      getsockopt: 'gives the answer, or the errno; 1348 answers ENOPROTOOPT',
      'getsockopt(TCP_SAVED_SYN)': readSyn(libc, fd) ? 'gives the saved SYN' : 'gives nothing',
      'sock_diag(7)': openDiag(libc)
    }
  } finally {
    client.destroy()
    accepted.destroy()
    server.close()
  }
}

function readSyn (libc: Libc, fd: number): boolean {
  const length = libc.readSavedSyn(fd)
  const read = decodeSavedSyn(libc.savedSyn, length, endpoint)
  if (read) strictEqual(formatAddress(endpoint), '198.51.100.60')
  return read
}

function openDiag (libc: Libc): string {
  const diag = libc.openDiag()
  if (typeof diag === 'number') return `is not there (${errnoName(diag)})`
  diag.close()
  return 'is there'
}

async function serve (options: FastifyRealIpOptions = {}): Promise<[app: FastifyInstance, port: number]> {
  const app = Fastify({ forceCloseConnections: true })
  await app.register(realIp, options)
  app.get('/', ({ realIp, realAddress }) => ({ ...realAddress, realIp }))
  await app.listen({ port: 0, host: '127.0.0.1' })
  return [app, (app.server.address() as AddressInfo).port]
}

type Told = RealAddress & { realIp?: string, localPort: number }

async function ask (port: number, localAddress: string, agent?: http.Agent): Promise<Told> {
  const request = http.get({ port, host: '127.0.0.1', localAddress, ...(agent && { agent }) })
  const [response] = await once(request, 'response') as [http.IncomingMessage]
  const { localPort } = request.socket as net.Socket
  return { ...await json(response) as Told, localPort: localPort as number }
}

function mustBe (told: Told, address: string): void {
  const { realIp, port, source, localPort } = told
  strictEqual(`${realIp} ${port} ${source}`, `${address} ${localPort} getpeername`)
}

async function answerRequest (): Promise<string> {
  const [app, port] = await serve()
  mustBe(await ask(port, '198.51.100.61'), '198.51.100.61')
  await app.close()
  return "has the client's address, source 'getpeername'"
}

/** Either the sender is known, and the right one, or nobody is believed. */
async function applyPolicy (): Promise<string> {
  const [app, port] = await serve({ trustedPeers: ['198.51.100.62'] })
  const { address, trust, transportPeer, reason } = await ask(port, '198.51.100.62')
  await app.close()
  if (trust === 'trusted') {
    strictEqual(transportPeer?.address, '198.51.100.62')
    return 'the sender is known'
  }
  strictEqual(`${address} ${trust} ${reason}`, 'undefined unverified unverified-peer')
  return 'the sender cannot be known, and nobody is believed'
}

async function serveInThreads (): Promise<string> {
  const workers = [new Worker(__filename), new Worker(__filename)] as const
  const [first, second] = await Promise.all(workers.map(async (worker) => (await once(worker, 'message') as [number])[0])) as [number, number]
  const agent = new http.Agent({ keepAlive: true })
  agent.on('free', (socket: net.Socket) => { socket.on('error', () => {}) })
  mustBe(await ask(first, '198.51.100.63', agent), '198.51.100.63')
  mustBe(await ask(second, '198.51.100.64'), '198.51.100.64')
  await workers[0].terminate()
  mustBe(await ask(second, '198.51.100.65'), '198.51.100.65')
  await workers[1].terminate()
  agent.destroy()
  return 'two serve; one goes on when the other is terminated'
}

async function probe (saved: Saved[]): Promise<Seen> {
  const { glibcVersionRuntime } = (process.report as unknown as { getReport (): { header: { glibcVersionRuntime?: string } } }).getReport().header
  return {
    node: process.version,
    arch: process.arch,
    libc: glibcVersionRuntime === undefined ? 'unknown' : `glibc ${glibcVersionRuntime}`,
    checks: {
      sockaddr: decodeSockaddrs(),
      'saved SYN': decodeSyns(saved),
      ...await callKernel(),
      'a request': await answerRequest(),
      'a request under trustedPeers': await applyPolicy(),
      'worker threads': await serveInThreads()
    }
  }
}

if (isMainThread) {
  void probe(JSON.parse(process.argv[2] as string)).then((seen) => { console.log(JSON.stringify(seen)) })
} else {
  void serve().then(([, port]) => { parentPort?.postMessage(port) })
}
