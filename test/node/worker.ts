// A server in a process of its own, of a cluster or not: tells its parent how listen() ended, and ends when told to.
import Fastify from 'fastify'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'

export interface Order {
  readonly plugin: FastifyRealIpOptions
  readonly listen: object
  readonly callback?: boolean
}

export interface Outcome {
  readonly port?: number
  readonly code?: string
  readonly message?: string
  readonly listening: boolean
}

async function serve ({ plugin, listen, callback = false }: Order): Promise<void> {
  const app = Fastify({ forceCloseConnections: true })
  await app.register(realIp, plugin)
  app.get('/', (request) => request.realAddress)
  app.get('/whoami', ({ realAddress: { address, port, source } }) => ({ realIp: address, port, source }))
  process.once('message', () => { void app.close().then(() => process.exit()) })
  let outcome: object
  try {
    if (callback) await new Promise<void>((resolve, reject) => app.listen(listen, (error) => error === null ? resolve() : reject(error)))
    else await app.listen(listen)
    outcome = { port: (app.server.address() as { port: number }).port }
  } catch (error) {
    const { code, message } = error as { code: string, message: string }
    outcome = { code, message }
  }
  // What is still bound, if anything, is bound a turn later too.
  setImmediate(() => process.send?.({ ...outcome, listening: app.server.listening }))
}

if (process.env.FASTIFY_REAL_IP_ORDER !== undefined) void serve(JSON.parse(process.env.FASTIFY_REAL_IP_ORDER))
