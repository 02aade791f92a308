import { once } from 'node:events'
import http2 from 'node:http2'
import { json } from 'node:stream/consumers'
import t from 'tap'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { SynReader } from '../../lib/kernel/saved-syn'
import { netlinkSockets } from './netlink-sockets'
import { kinds, listen, oneLoopback, type Client, type Kind } from '../kinds'

const linux = process.platform === 'linux'
const crowd = 30

/** A client that may be cut off at any time: of HTTP/2 both its socket and its session tell, and it must hear both. */
async function connect (kind: Kind, port: number, localAddress: string): Promise<Pick<Client, 'localPort' | 'get'> & { close: () => void }> {
  if (kind.name !== 'h2c' && kind.name !== 'h2') {
    const client = await kind.connect(port, { localAddress })
    client.socket.on('error', () => {})
    return { ...client, close: () => { client.socket.destroy() } }
  }
  const scheme = kind.name === 'h2' ? 'https' : 'http'
  const session = http2.connect(`${scheme}://127.0.0.1:${port}`, { localAddress, rejectUnauthorized: false } as http2.SecureClientSessionOptions)
  await once(session, 'connect')
  session.on('error', () => {})
  return {
    localPort: session.socket.localPort as number,
    get: (path) => json(session.request({ ':path': path })),
    close () { session.destroy() }
  }
}

// Under a policy, and with no SYN kept, sock_diag(7) is asked, so that there is a netlink socket to close; without one nobody asks
// it about clients on loopback.
const ways: Array<[way: string, forceCloseConnections: boolean, options: FastifyRealIpOptions]> = [
  ['who are served to the end', false, {}],
  ['who are cut off', true, {}],
  ...linux ? [['who are under a policy', false, { trustedPeers: ['127.0.0.0/8'], admit: () => true }] as [string, boolean, object]] : []
]

for (const kind of kinds) {
  for (const [way, forceCloseConnections, options] of ways) {
    t.test(`${kind.name}: app.close() while clients ask, ${way}`, { skip: oneLoopback }, async (t) => {
      const before = linux ? netlinkSockets() : 0
      const listeners = kind.create().server.listenerCount('connection')
      if ('trustedPeers' in options) {
        const { read } = SynReader.prototype
        SynReader.prototype.read = () => false
        t.teardown(() => { SynReader.prototype.read = read })
      }
      const app = kind.create({ forceCloseConnections })
      await app.register(realIp, options)
      let answers = 0
      let during = 0
      let closing: PromiseLike<unknown> | undefined
      // In the middle of requests, and with others on their way.
      app.get('/', async (request) => {
        if (++answers === crowd * 10) {
          during = linux ? netlinkSockets() : 0
          closing = app.close()
        }
        await new Promise((resolve) => setImmediate(resolve))
        return request.realAddress
      })
      t.teardown(() => app.close())
      const port = await listen(app)

      const wrong: unknown[] = []
      let cut = 0
      await Promise.all(Array.from({ length: crowd }, async (_, n) => {
        const localAddress = `127.0.8.${n + 1}`
        for (let visits = 0; visits < 1000; visits++) {
          try {
            const client = await connect(kind, port, localAddress)
            try {
              // Some come for one request, others stay.
              for (let asked = 0; asked < 1 + n % 3 * 50; asked++) {
                const answer = await client.get('/')
                if (answer.statusCode === 503) throw new Error('closing')
                if (answer.address !== localAddress || answer.port !== client.localPort) wrong.push(answer)
              }
            } finally {
              client.close()
            }
          } catch {
            cut++
            return
          }
        }
      }))
      t.ok(closing)
      await closing
      t.same(wrong, [], `${answers} answers`)
      t.equal(cut, crowd, 'each client was cut off in the end')
      t.notOk(app.server.listening)
      t.equal(app.server.listenerCount('connection'), listeners, 'no listener is left')
      t.equal(during, 'trustedPeers' in options ? before + 1 : before)
      if (linux) t.equal(netlinkSockets(), before, 'no netlink socket is left')
      await t.rejects(kind.connect(port), { code: 'ECONNREFUSED' })
    })
  }
}
