// One GET after the other, each on a connection of its own: node ask.js '{"ports":[3000],"count":3,"localAddress":"127.0.0.1"}'
// Prints the statuses as JSON; the requests go to the ports in turn.
import { once } from 'node:events'
import http, { type IncomingMessage } from 'node:http'

export interface Asked {
  readonly ports: readonly number[]
  readonly count: number
  readonly localAddress: string
}

async function main ({ ports, count, localAddress }: Asked): Promise<void> {
  const statuses: unknown[] = []
  for (let n = 0; n < count; n++) {
    const [response] = await once(
      http.get({ host: '127.0.0.1', port: ports[n % ports.length], localAddress, agent: false }), 'response') as [IncomingMessage]
    statuses.push(response.statusCode)
    response.resume()
    await once(response, 'close')
  }
  console.log(JSON.stringify(statuses))
}

main(JSON.parse(process.argv[2] as string))
