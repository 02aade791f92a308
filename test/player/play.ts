import { once } from 'node:events'
import { isIPv6 } from 'node:net'
import { balancers, through } from './balancers'
import { balancerAddresses, hasIPv6, insideNamespace, serverAddresses, spawnInNamespace } from './namespace'
import { openPlayer, type HttpResponse } from './player'
import { toa, toaKinds } from './tcp-options'

const PORT = 8080

/** One request, whose segments carry an address and port in TOA. */
export interface Visit {
  readonly client: string
  readonly clientPort: number
  /** The transport peer: the balancer, if none is given. Any other is a client that forges. */
  readonly source?: string
  readonly path?: string
}

export interface Play {
  /** A module that exports `listen(options: { host: string, port: number })`, which starts a server. */
  readonly server: string
  readonly visits: readonly Visit[]
}

/** Runs the server in a network namespace of its own, and gives what it answers to each visit. */
export async function play (given: Play): Promise<HttpResponse[]> {
  const child = spawnInNamespace(__filename, [JSON.stringify(given)], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })
  let responses: HttpResponse[] | undefined
  child.once('message', (message) => { responses = message as HttpResponse[] })
  const [status] = await once(child, 'close')
  if (responses === undefined) throw new Error(`the play was broken off with status ${status}`)
  return responses
}

async function perform ({ server, visits }: Play): Promise<HttpResponse[]> {
  await require(server).listen({ host: hasIPv6() ? '::' : '0.0.0.0', port: PORT })
  const player = openPlayer()
  const responses: HttpResponse[] = []
  for (const visit of visits) {
    const family = isIPv6(visit.client) ? 'IPv6' : 'IPv4'
    const connection = await player.connect({
      source: visit.source ?? balancerAddresses[family],
      destination: serverAddresses[family],
      port: PORT,
      ...through(balancers.lvs, toa(toaKinds.alibaba[family], visit.client, visit.clientPort))
    })
    responses.push(await connection.request(`GET ${visit.path ?? '/'} HTTP/1.1\r\nHost: ${serverAddresses.IPv4}\r\n\r\n`))
    connection.end()
  }
  player.close()
  return responses
}

if (require.main === module && insideNamespace()) {
  void perform(JSON.parse(process.argv[2] as string)).then((responses) => {
    process.send?.(responses, () => process.exit())
  })
}
