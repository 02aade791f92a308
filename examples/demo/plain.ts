import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { json } from 'node:stream/consumers'
import { createServer } from './server'
import type { Stage } from './stage'
import type { Answer, Seen } from './visit'

/** Plain requests to this host: `why` names the obstacle to TOA, `client` is the requested address. */
export async function openPlain (why: readonly string[], client: string | undefined): Promise<Stage> {
  return {
    about: 'Only the peer is shown, the other end of each connection as the kernel or Node.js reports it: on this ' +
      'machine the demo cannot create connections that carry TOA' +
      `${client === undefined ? '' : `, so that ${client} cannot be shown`}.\n` +
      why.map((reason) => `  - ${reason}`).join('\n'),
    way: ({ answer }) => [
      ['client', String(answer?.ip)],
      ['balancer', 'none here', 'no TOA'],
      ['kernel', 'knows only', 'the peer'],
      ['plugin', 'no TOA:', 'the peer'],
      ['handler', 'request.realIp', String(answer?.realAddress.address)]
    ],
    options: {},
    checked: false,
    seen: await perform(),
    own: { options: {}, about: 'They carry no TOA either, so the answer is their own address.' },
    async close () {}
  }
}

async function perform (): Promise<Seen[]> {
  const lines: string[] = []
  const app = await createServer({}, (line) => lines.push(line))
  // 'localhost' has both families if the machine has both.
  await app.listen({ host: 'localhost', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const seen: Seen[] = []
  const hosts = (app.addresses() as AddressInfo[]).map(({ address }) => address)
  for (const host of hosts.length > 1 ? hosts : [...hosts, ...hosts]) {
    const [response] = await once(http.get({ host, port }), 'response') as [http.IncomingMessage]
    const answer = await json(response) as Answer
    const log = lines.pop()
    seen.push({ visit: { by: 'balancer' }, answer, ...log !== undefined && { log } })
  }
  await app.close()
  return seen
}
