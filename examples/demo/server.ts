import Fastify, { type FastifyInstance } from 'fastify'
import realIp, { withRealIp, type FastifyRealIpOptions } from 'fastify-real-ip'
import type { Answer } from './visit'

/** A server that answers every request with the plugin's answer. `onLog` gets the lines of its access log. */
export async function createServer (
  options: FastifyRealIpOptions, onLog: (line: string) => void
): Promise<FastifyInstance> {
  const app = Fastify({
    forceCloseConnections: true,
    logger: {
      base: null,
      serializers: { req: withRealIp() },
      stream: { write (line: string) { if (line.includes('"req":')) onLog(line.trimEnd()) } }
    }
  })
  await app.register(realIp, options)
  app.get('/*', (request, reply): void => {
    const { realAddress, ip } = request
    const answer: Answer = { realAddress, ip }
    void reply.type('application/json').send(`${JSON.stringify(answer, undefined, 2)}\n`)
  })
  return app
}
