import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import t from 'tap'
import { formatAddress } from '../../lib/address/address'
import { loadLibc, type Libc } from '../../lib/kernel/libc'
import { armListener, SynReader } from '../../lib/kernel/saved-syn'
import { createEndpoint } from '../../lib/kernel/sockaddr'
import { fdOf } from '../../lib/node/sockets'

if (process.platform !== 'linux') {
  t.plan(0, 'TCP_SAVED_SYN is Linux\'s')
  process.exit()
}

const libc = loadLibc() as Libc

t.test('the saved SYN: read once, and not there for a connection older than armListener()', async (t) => {
  const server = net.createServer().listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await once(server, 'listening')
  async function connect (localAddress: string): Promise<[client: net.Socket, accepted: net.Socket]> {
    const accepting = once(server, 'connection') as Promise<[net.Socket]>
    const client = net.connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', localAddress })
    const [accepted] = await accepting
    t.teardown(() => {
      client.destroy()
      accepted.destroy()
    })
    return [client, accepted]
  }

  const syn = new SynReader(libc)
  const [, older] = await connect('127.0.0.34')
  t.equal(armListener(libc, fdOf(server)), undefined)
  t.match(armListener(libc, -1), 'EBADF')
  const into = createEndpoint()
  t.notOk(syn.read(fdOf(older), into))
  t.same([syn.length, syn.tcp], [0, -1])
  const [client, accepted] = await connect('127.0.0.35')
  t.ok(syn.read(fdOf(accepted), into))
  t.same([formatAddress(into), into.port], ['127.0.0.35', client.localPort])
  t.ok(syn.length >= 40)
  t.equal(syn.tcp, 20)
  syn.forget()
  t.same([syn.length, syn.tcp], [0, -1], 'what is forgotten is not there for the next connection')
  t.notOk(syn.read(fdOf(accepted), into), 'the second time')
  t.notOk(syn.read(-1, into))
})
