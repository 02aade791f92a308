// Round-robin workers of node:cluster, whose primary accepts, with a list of trusted peers: on this Node.js and on those
// whose paths are the arguments. Fails where a sender is wrong, a worker does not warn exactly once, or a connection of a
// Unix-domain socket is taken for one that has a sender.
import { deepStrictEqual, strictEqual } from 'node:assert'
import { spawn } from 'node:child_process'
import cluster, { type Worker } from 'node:cluster'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { json, text } from 'node:stream/consumers'
import Fastify from 'fastify'
import realIp from 'fastify-real-ip'

const WORKERS = 2
const CONNECTIONS = 24
const host = '127.0.0.1'
const trustedPeers = ['127.0.0.16/28']

/** What a worker says: where it listens, then the codes of its warnings. */
type Message = { readonly port?: number } | { readonly codes: string[] }

/** Listens on this path, or on TCP. */
async function work (path: string | undefined): Promise<void> {
  const codes: string[] = []
  const stream = { write (line: string) { codes.push(JSON.parse(line).code) } }
  const app = Fastify({ forceCloseConnections: true, logger: { level: 'warn', stream } })
  await app.register(realIp, { trustedPeers, unverified: 'reject' })
  app.get('/', ({ realAddress }) => ({ ...realAddress, pid: process.pid }))
  process.once('message', () => {
    void app.close().then(() => { process.send?.({ codes }, undefined, undefined, () => process.exit()) })
  })
  await app.listen(path === undefined ? { port: 0, host } : { path })
  const address = app.server.address()
  process.send?.(typeof address === 'object' ? { port: address?.port } : {})
}

const hear = async (worker: Worker) => (await once(worker, 'message') as [Message])[0]

async function ask (port: number, localAddress: string): Promise<number> {
  const request = http.get({ port, host, localAddress, agent: false })
  const [response] = await once(request, 'response') as [http.IncomingMessage]
  const { pid, address, port: clientPort, trust, transportPeer } = await json(response) as Record<string, any>
  const sender = { address: localAddress, port: (request.socket as { localPort?: number }).localPort }
  const isListed = Number(localAddress.split('.')[3]) < 32
  const expected = { ...sender, trust: isListed ? 'trusted' : 'untrusted', transportPeer: sender }
  deepStrictEqual({ address, port: clientPort, trust, transportPeer }, expected)
  return pid
}

/** In the primary. */
async function serveUnix (): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), 'fastify-real-ip-round-robin-'))
  process.once('exit', () => { rmSync(folder, { recursive: true }) })
  const socketPath = join(folder, 'server.sock')
  const worker = cluster.fork({ SOCKET_PATH: socketPath })
  await hear(worker)
  for (let n = 0; n < 3; n++) {
    const [response] = await once(http.get({ socketPath, agent: false }), 'response') as [http.IncomingMessage]
    const { pid, ...answer } = await json(response) as Record<string, unknown>
    // Neither reset by unverified: 'reject' nor looked for.
    deepStrictEqual(answer, { source: 'none', trust: 'untrusted', reason: 'no-address', attempts: [] })
    strictEqual(pid, worker.process.pid)
  }
  const ended = once(worker, 'exit')
  const told = hear(worker)
  worker.send('end')
  deepStrictEqual(await told, { codes: [] })
  await ended
}

/** In the primary. */
async function serve (): Promise<void> {
  const workers = Array.from({ length: WORKERS }, () => cluster.fork())
  const [first] = await Promise.all(workers.map(hear)) as [{ port: number }]
  const pids = new Set<number>()
  for (let n = 0; n < CONNECTIONS; n++) pids.add(await ask(first.port, `127.0.0.${20 + n}`))
  strictEqual(pids.size, WORKERS)
  const ended = Promise.all(workers.map((worker) => once(worker, 'exit')))
  const told = workers.map(hear)
  for (const worker of workers) worker.send('end')
  for (const message of await Promise.all(told)) {
    const { codes } = message as { codes: string[] }
    // The clients are on this host, and some are not in the list.
    deepStrictEqual(codes.sort(), ['FST_REAL_IP_ROUND_ROBIN', 'FST_REAL_IP_SIDECAR'])
  }
  await ended
}

const primaries = { TCP: serve, 'a Unix-domain socket': serveUnix }

async function main (others: string[]): Promise<void> {
  let passed = 0
  let failed = 0
  for (const node of [process.execPath, ...others]) {
    for (const name of Object.keys(primaries)) {
      const child = spawn(node, [__filename, 'serve', name], { stdio: ['ignore', 'ignore', 'pipe'], timeout: 60_000 })
      const [said, [code]] = await Promise.all([text(child.stderr), once(child, 'exit')])
      if (code === 0) passed++
      else failed++
      console.log(`${code === 0 ? 'ok' : 'not ok'} - round-robin workers on ${name}, ${node}${said === '' ? '' : `\n${said}`}`)
    }
  }
  console.log(`${passed} passed, ${failed} failed`)
  process.exitCode = failed === 0 ? 0 : 1
}

if (cluster.isWorker) {
  void work(process.env.SOCKET_PATH)
} else if (process.argv[2] === 'serve') {
  // It also ends where its workers have died.
  process.exitCode = 1
  void primaries[process.argv[3] as keyof typeof primaries]().then(() => { process.exitCode = 0 })
} else {
  void main(process.argv.slice(2))
}
