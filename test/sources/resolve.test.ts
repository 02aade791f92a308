import t from 'tap'
import type { KernelSource } from '../../types'
import { createResolve } from '../../lib/sources/resolve'
import { copyEndpoint, createEndpoint, type Endpoint } from '../../lib/kernel/sockaddr'
import type { Source } from '../../lib/sources/source'

const endpoint = (w3: number): Endpoint => ({ ...createEndpoint(), w3, port: 80 })
const peer = endpoint(1)
const client = endpoint(2)

/** Gives an endpoint, or the reason why there is none. */
function source (name: KernelSource, says: Endpoint | string, asked: string[] = []): Source {
  return {
    name,
    read (_fd, into) {
      asked.push(name)
      if (typeof says === 'string') return says
      copyEndpoint(says, into)
      return undefined
    },
    missing: () => undefined
  }
}

function ask (sources: readonly Source[], peer?: Endpoint) {
  const into = createEndpoint()
  const { source, attempts } = createResolve(sources)(5, into, peer)
  return { source, w3: into.w3, attempts: attempts.map(({ source, reason }) => `${source} ${reason}`) }
}

t.test('the first that answers, and why those before it did not', async (t) => {
  const asked: string[] = []
  const sources = [source('vtoa', 'ENOPROTOOPT', asked), source('nat64', client, asked), source('getpeername', peer, asked)]
  t.same(ask(sources), { source: 'nat64', w3: 2, attempts: ['vtoa ENOPROTOOPT'] })
  t.same(asked, ['vtoa', 'nat64'], 'no other is asked')
  t.same(ask([source('vtoa', 'EDOM'), source('getpeername', 'ENOTCONN')]), { source: undefined, w3: 0, attempts: ['vtoa EDOM', 'getpeername ENOTCONN'] })
  t.same(ask([]), { source: undefined, w3: 0, attempts: [] })
})

t.test('who gives the transport peer alone has said nothing of a client, but the last of all', async (t) => {
  const three = (vtoa: Endpoint | string, nat64: Endpoint | string, getpeername: Endpoint | string) =>
    [source('vtoa', vtoa), source('nat64', nat64), source('getpeername', getpeername)]
  t.same(ask(three(peer, peer, client), peer), { source: 'getpeername', w3: 2, attempts: ['vtoa transport-peer', 'nat64 transport-peer'] })
  t.same(ask(three(peer, peer, peer), peer), { source: 'getpeername', w3: 1, attempts: ['vtoa transport-peer', 'nat64 transport-peer'] })
  t.same(ask(three(peer, 'EINVAL', peer), peer), { source: 'getpeername', w3: 1, attempts: ['vtoa transport-peer', 'nat64 EINVAL'] })
  t.same(ask(three(client, peer, peer), peer), { source: 'vtoa', w3: 2, attempts: [] })
  t.same(ask(three(peer, client, peer)), { source: 'vtoa', w3: 1, attempts: [] }, 'where it is not known, each is believed')
})

t.test('connections that went the same way share what is kept of it', async (t) => {
  const resolve = createResolve([source('vtoa', 'ENOPROTOOPT'), source('getpeername', client)])
  t.equal(resolve(5, createEndpoint(), undefined), resolve(6, createEndpoint(), undefined))
})
