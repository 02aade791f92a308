// A worker for each core. TRUSTED_PEERS=127.0.0.1 node dist/examples/cluster.js, then: curl http://127.0.0.1:3000
//
// Each worker listens on its own socket (reusePort), and the kernel distributes the connections. Workers that get their
// connections from the primary must look up each sender, which takes longer. Requires Linux and Node.js 22.12 or later;
// elsewhere there is only one worker.

import cluster from 'node:cluster'
import { availableParallelism } from 'node:os'
import Fastify from 'fastify'
import realIp from 'fastify-real-ip'

const { HOST = '127.0.0.1', PORT = '3000', WORKERS = String(availableParallelism()), TRUSTED_PEERS = '' } = process.env
// If TRUSTED_PEERS is missing or empty, this is not a list of addresses, and the server fails to start.
const trustedPeers = TRUSTED_PEERS === 'any' ? TRUSTED_PEERS : TRUSTED_PEERS.split(',')

const [major, minor] = process.versions.node.split('.').map(Number) as [number, number]
const hasReusePort = process.platform === 'linux' && (major > 22 || (major === 22 && minor >= 12))

function startWorkers (): void {
  if (!hasReusePort) console.log('one worker only: reusePort needs Linux and Node.js 22.12 or later')
  const count = hasReusePort ? Number(WORKERS) : 1
  for (let n = 0; n < count; n++) cluster.fork()
  cluster.on('exit', (_worker, code) => { if (code !== 0) process.exitCode = 1 })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) {
    process.once(signal, () => {
      for (const worker of Object.values(cluster.workers ?? {})) worker?.kill(signal)
    })
  }
}

async function serve (): Promise<void> {
  const app = Fastify({ logger: true })
  await app.register(realIp, { trustedPeers })

  app.get('/', (request) => `Hello, ${request.realIp}, from process ${process.pid}\n`)

  // Ctrl-C reaches the workers twice: from the terminal and from the primary.
  let closing: Promise<unknown> | undefined
  for (const signal of ['SIGINT', 'SIGTERM']) {
    process.on(signal, () => { closing ??= app.close().then(() => cluster.worker?.disconnect()) })
  }
  await app.listen({ host: HOST, port: Number(PORT), ...hasReusePort ? { reusePort: true } : { exclusive: true } })
}

if (cluster.isPrimary) startWorkers()
else serve()
