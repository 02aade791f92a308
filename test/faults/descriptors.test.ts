import { readlinkSync } from 'node:fs'
import t from 'tap'
import type { FastifyRealIpOptions } from 'fastify-real-ip'
import { kinds, type Client } from '../kinds'
import { start } from './start'

const [http] = kinds
const policies: Array<[name: string, plugin: FastifyRealIpOptions, source: string]> = [
  ['no policy', {}, 'getpeername'],
  ['a list of trustedPeers', { trustedPeers: ['127.0.0.0/8'], virtualServer: true }, 'transport-peer']
]

for (const [name, plugin, source] of policies) {
  t.test(`no descriptor is left: ${name}`, { skip: process.platform !== 'linux' && 'not Linux' }, async (t) => {
    const { port, end } = await start(t, { plugin }, ['sh', '-c', 'ulimit -n 64 && exec "$@"', 'sh'])
    const served: Client[] = []
    let refused = 0
    for (let n = 1; n <= 100; n++) {
      const localAddress = `127.0.4.${n}`
      const client = await http!.connect(port, { localAddress })
      client.socket.on('error', () => {})
      try {
        t.match(await client.get('/'), { address: localAddress, port: client.localPort, source })
        served.push(client)
      } catch {
        refused++
        await client.close()
      }
    }
    t.ok(served.length > 10 && refused > 10, `${served.length} of 100 fit in, ${refused} do not`)

    const [first, ...others] = served as [Client, ...Client[]]
    t.match(await first.get('/'), { address: '127.0.4.1', port: first.localPort }, 'who is in is served on')
    await Promise.all(others.map((client) => client.close()))
    // The server learns of it by and by: what comes in the meantime is turned away like the others.
    let after: any
    for (let n = 1; n <= 1000 && after === undefined; n++) {
      const client = await http!.connect(port, { localAddress: '127.0.4.200' })
      client.socket.on('error', () => {})
      after = await client.get('/').catch(() => undefined)
      if (after !== undefined) t.match(after, { address: '127.0.4.200', port: client.localPort, source })
      await client.close()
    }
    t.ok(after, 'who comes when others have gone is served')
    await first.close()
    t.equal(await end(), 0)
  })
}

t.test("descriptor 0 is a connection's like any other", { skip: process.platform !== 'linux' && 'not Linux' }, async (t) => {
  for (const [name, plugin, source] of policies) {
    const { port, pid, end } = await start(t, { plugin, closeStdin: true })
    const client = await http!.connect(port, { localAddress: '127.0.4.7' })
    t.match(await client.get('/'), { address: '127.0.4.7', port: client.localPort, source }, name)
    t.match(readlinkSync(`/proc/${pid}/fd/0`), /^socket:/)
    await client.close()
    t.equal(await end(), 0)
  }
})
