import { strictEqual } from 'node:assert'
import Fastify from 'fastify'
import realIp, { type FastifyRealIpOptions, type RealAddress } from 'fastify-real-ip'

/** What a user of the plugin would notice. */
export interface Noticed {
  readonly registered: boolean
  readonly listening?: boolean
  readonly code?: string
  readonly warnings: string[]
  readonly answers: RealAddress[]
}

/** Serves two real requests with the plugin; prints what was noticed, for the parent process to judge. */
async function serveOnce (options: FastifyRealIpOptions): Promise<Noticed> {
  const warnings: string[] = []
  const stream = { write (line: string) { warnings.push(JSON.parse(line).msg) } }
  const app = Fastify({ logger: { level: 'warn', stream } })
  try {
    await app.register(realIp, options)
  } catch (error) {
    return { registered: false, code: (error as { code: string }).code, warnings, answers: [] }
  }
  app.get('/', (request) => {
    strictEqual(request.realIp, request.realAddress.address)
    return request.realAddress
  })
  let origin: string
  try {
    origin = await app.listen({ host: '127.0.0.1', port: 0 })
  } catch (error) {
    const { code } = error as { code: string }
    return { registered: true, code, listening: app.server.listening, warnings, answers: [] }
  }
  const answers: RealAddress[] = []
  for (let n = 0; n < 2; n++) {
    const headers = options.forwarded === undefined ? {} : { 'x-forwarded-for': '198.51.100.1, 203.0.113.7' }
    answers.push(await (await fetch(origin, { headers })).json() as RealAddress)
  }
  await app.close()
  return { registered: true, listening: true, warnings, answers }
}

serveOnce(JSON.parse(process.argv[2] as string)).then((noticed) => console.log(JSON.stringify(noticed)))
