import { once } from 'node:events'
import { createServer } from 'node:http'
import type { ListenOptions } from 'node:net'

/** Answers with the path that was asked for and who asked, as `node:net` has it. */
export async function listen (options: ListenOptions): Promise<void> {
  const server = createServer((request, response) => {
    response.end(`${request.url} ${request.socket.remoteAddress?.replace('::ffff:', '')}`)
  })
  await once(server.listen(options), 'listening')
}
