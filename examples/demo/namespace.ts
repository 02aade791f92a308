import { once } from 'node:events'
import { isIPv6, type AddressInfo } from 'node:net'
import type { FastifyRealIpOptions } from 'fastify-real-ip'
import { balancers, through } from '../../test/player/balancers'
import {
  balancerAddresses, hasIPv6, insideNamespace, namespaceUnavailable, serverAddresses, spawnInNamespace
} from '../../test/player/namespace'
import { openPlayer, type Player } from '../../test/player/player'
import { toa, toaKinds } from '../../test/player/tcp-options'
import { createServer } from './server'
import { judgement, type OpenStage } from './stage'
import { CLIENT_PORT, type Answer, type Seen, type Visit } from './visit'

const strangerAddresses = { IPv4: '192.0.2.66', IPv6: '2001:db8::66' } as const
const readsTheSyn = { sources: ['saved-syn'], toa: 'alibaba' } as const satisfies FastifyRealIpOptions
const options = { ...readsTheSyn, trustedPeers: Object.values(balancerAddresses) }

type Report = { readonly seen: readonly Seen[] } | { readonly error: string }

/** A balancer in a private network namespace, on an unmodified kernel. Needs no root if user namespaces are allowed. */
export const openNamespace: OpenStage = async (visits, stop) => {
  const unavailable = namespaceUnavailable()
  if (unavailable !== undefined) throw new Error(unavailable)
  const child = spawnInNamespace(__filename, [JSON.stringify(visits)], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'], signal: stop
  })
  const reports: Report[] = []
  child.once('message', (message) => reports.push(message as Report))
  const [status] = await once(child, 'close')
  const report = reports[0] ??
    { error: `the process in the private network namespace exited early with status ${status}` }
  if ('error' in report) throw new Error(report.error)
  return {
    about: 'A simulated balancer in a private network namespace writes TOA on real TCP handshakes. This machine\'s ' +
      'unmodified kernel saves each SYN, and the plugin reads it. No root is needed.',
    way: (first) => [
      ['client', first.visit.client as string],
      ['balancer', balancerAddresses[isIPv6(first.visit.client as string) ? 'IPv6' : 'IPv4'], 'adds TOA'],
      ['kernel', 'saves the SYN', 'with its TOA'],
      ['plugin', 'trusted?', judgement(first)],
      ['handler', 'request.realIp', String(first.answer?.realAddress.address)]
    ],
    options,
    checked: true,
    seen: report.seen,
    own: {
      options: { ...readsTheSyn, trustedPeers: ['loopback'] },
      about: 'They carry no TOA, so the answer is their own address.'
    },
    async close () {}
  }
}

async function perform (visits: readonly Visit[]): Promise<Seen[]> {
  const lines: string[] = []
  const app = await createServer(options, (line) => lines.push(line))
  await app.listen({ host: hasIPv6() ? '::' : '0.0.0.0', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const player = openPlayer()
  const seen: Seen[] = []
  for (const visit of visits) {
    const answer = await make(visit, player, port)
    const log = lines.pop()
    seen.push({ visit, ...answer && { answer }, ...log !== undefined && { log } })
  }
  player.close()
  await app.close()
  return seen
}

/** `undefined` if the connection was reset. */
async function make ({ by, client }: Visit, player: Player, port: number): Promise<Answer | undefined> {
  const claims = client !== undefined && isIPv6(client) ? 'IPv6' : 'IPv4'
  const family = hasIPv6() ? claims : 'IPv4'
  const addresses = by === 'balancer' ? balancerAddresses : strangerAddresses
  const stamps = client === undefined ? {} : through(balancers.lvs, toa(toaKinds.alibaba[claims], client, CLIENT_PORT))
  const connection = await player.connect({
    source: addresses[family], destination: serverAddresses[family], port, ...stamps
  })
  try {
    const { body } = await connection.request('GET / HTTP/1.1\r\nHost: demo\r\n\r\n')
    connection.end()
    return JSON.parse(body)
  } catch (error) {
    if (await connection.ending() === 'RST') return undefined
    throw error
  }
}

if (require.main === module && insideNamespace()) {
  const report = (message: Report) => process.send?.(message, () => process.exit())
  perform(JSON.parse(process.argv[2] as string)).then(
    (seen) => report({ seen }),
    (error: Error) => report({ error: error.message })
  )
}
