import { once } from 'node:events'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { labUnavailable, openLab, type Lab } from '../../test/lab/lab'
import { createServer } from './server'
import { judgement, type OpenStage } from './stage'
import { CLIENT_PORT, type Answer, type Seen, type Visit } from './visit'

const addresses = { balancer: '127.0.0.1', stranger: '127.0.0.66' } as const
const options = { trustedPeers: [addresses.balancer] }

/** The running kernel, with eBPF programs in place of the vtoa module and the balancer. Needs root and clang. */
export const openKernelLab: OpenStage = async (visits) => {
  const unavailable = labUnavailable()
  if (unavailable !== undefined) throw new Error(unavailable)
  const lab = await openLab()
  try {
    lab.module.start()
    lab.enterServer()
    const seen = await perform(lab, visits)
    return {
      about: 'The clients write TOA on their own segments, as a balancer would, and eBPF programs on this kernel ' +
        'stand in for the vtoa module: getsockopt 1348 answers, and getpeername is rewritten.',
      way: (first) => [
        ['client', first.visit.client as string],
        ['balancer', addresses.balancer, 'adds TOA'],
        ['kernel', '1348 answers', 'with TOA'],
        ['plugin', 'trusted?', judgement(first)],
        ['handler', 'request.realIp', String(first.answer?.realAddress.address)]
      ],
      options,
      checked: true,
      seen,
      own: { options, about: 'They carry no TOA, so the answer is their own address.' },
      close: () => lab.close()
    }
  } catch (error) {
    await lab.close()
    throw error
  }
}

async function perform (lab: Lab, visits: readonly Visit[]): Promise<Seen[]> {
  const lines: string[] = []
  const app = await createServer(options, (line) => lines.push(line))
  await app.listen({ host: '127.0.0.1', port: 0 })
  const { port } = app.server.address() as AddressInfo
  const client = await lab.client(null)
  const seen: Seen[] = []
  for (const visit of visits) {
    client.set(visit.client === undefined ? null : { address: visit.client, port: CLIENT_PORT })
    const args = [__filename, String(port), addresses[visit.by]]
    const { stdout, code } = await client.run(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    if (code !== 0) throw new Error(`a client of the kernel lab exited with code ${code}`)
    const log = lines.pop()
    seen.push({ visit, ...stdout !== '' && { answer: JSON.parse(stdout) as Answer }, ...log !== undefined && { log } })
  }
  await app.close()
  return seen
}

/** Prints the server's answer; nothing if it resets the connection. */
async function ask (port: number, localAddress: string): Promise<void> {
  const request = http.get({ host: '127.0.0.1', port, localAddress })
  try {
    const [response] = await once(request, 'response') as [http.IncomingMessage]
    process.stdout.write(await text(response))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ECONNRESET') throw error
  }
}

if (require.main === module) void ask(Number(process.argv[2]), process.argv[3] as string)
