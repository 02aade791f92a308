// A server in a process or thread of its own: tells its parent the port, and ends when told to.
import cluster from 'node:cluster'
import { parentPort, workerData } from 'node:worker_threads'
import Fastify from 'fastify'
import realIp from 'fastify-real-ip'

const tell = (message: object) => parentPort === null ? process.send?.(message) : parentPort.postMessage(message)
const parent = parentPort ?? process

async function serve (options: object): Promise<void> {
  const app = Fastify()
  await app.register(realIp, workerData?.plugin)
  app.get('/', (request) => request.realAddress)
  app.get('/whoami', ({ realAddress: { address, port, source } }) => ({ realIp: address, port, source }))
  await app.listen(options)
  parent.once('message', () => {
    app.close().then(() => process.exit(0))
  })
  tell(app.server.address() as object)
}

if (cluster.isPrimary || workerData != null) {
  serve(JSON.parse(process.argv[2] ?? '{"port":0,"host":"127.0.0.1"}'))
} else {
  serve({ port: Number(process.env.PORT), host: '127.0.0.1' })
}
