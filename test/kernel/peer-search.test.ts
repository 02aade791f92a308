import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { constants } from 'node:os'
import t, { type Test } from 'tap'
import { loadLibc, type Diag, type Libc } from '../../lib/kernel/libc'
import { formatAddress } from '../../lib/address/address'
import { createEndpoint } from '../../lib/kernel/sockaddr'
import { PeerSearch } from '../../lib/kernel/peer-search'
import { noIPv6 } from '../kinds'

if (process.platform !== 'linux') {
  t.plan(0, 'sock_diag is Linux\'s')
  process.exit()
}

const libc = loadLibc() as Libc
const fdOf = (socket: object): number => (socket as { _handle: { fd: number } })._handle.fd

interface Pair {
  readonly client: net.Socket
  readonly accepted: net.Socket
}

interface Place {
  readonly server: net.Server
  connect (localAddress?: string): Promise<Pair>
}

async function listen (t: Test, host = '127.0.0.1', to = host): Promise<Place> {
  const server = net.createServer().listen(0, host)
  await once(server, 'listening')
  const pairs: Pair[] = []
  t.teardown(() => {
    for (const { client, accepted } of pairs) {
      client.destroy()
      accepted.destroy()
    }
    server.close()
  })
  return {
    server,
    async connect (localAddress = to) {
      const accepting = once(server, 'connection')
      const client = net.connect({ port: (server.address() as AddressInfo).port, host: to, localAddress })
      const pair = { client, accepted: (await accepting)[0] as net.Socket }
      pairs.push(pair)
      return pair
    }
  }
}

/** getpeername as a module rewrites it: another port. What sock_diag is asked is counted. */
function lying (lie: (answer: Uint8Array) => void = (answer) => { answer.set([0, 9], 2) }): Libc & { exacts: number, dumps: number } {
  const counted = {
    ...libc,
    exacts: 0,
    dumps: 0,
    getpeername (fd: number) {
      const errno = libc.getpeername(fd)
      if (errno === 0) lie(libc.answer)
      return errno
    },
    openDiag (): Diag | number {
      const diag = libc.openDiag() as Diag
      return {
        ...diag,
        send (length) {
          // NLM_F_DUMP, in the flags of struct nlmsghdr
          const flags = new Uint16Array(diag.buffer.buffer, diag.buffer.byteOffset + 6, 1)[0]!
          if ((flags & 0x300) === 0x300) counted.dumps++
          else counted.exacts++
          return diag.send(length)
        }
      }
    }
  }
  return counted
}

type Found = [address: string | undefined, port: number]

const ask = (search: PeerSearch, fd: number) => new Promise<Found>((resolve) => {
  search.ask(fd, (peer) => { resolve(peer === undefined ? [undefined, 0] : [formatAddress(peer), peer.port]) })
})

const ignore = () => {}

const places: Array<[name: string, host: string, to: string]> = [
  ['IPv4', '127.0.0.1', '127.0.0.1'], ['IPv6', '::1', '::1'], ['IPv4 of a dual-stack listener', '::', '127.0.0.1'], ['IPv6 of one', '::', '::1']
]

for (const [name, host, to] of places) {
  t.test(`${name}: an exact lookup proves getpeername true, a dump finds the truth where it is not`, { skip: host !== '127.0.0.1' && noIPv6 }, async (t) => {
    const place = await listen(t, host, to)
    const { client, accepted } = await place.connect()
    const truth = [to, client.localPort]
    const honest = lying(() => {})
    const search = new PeerSearch(honest)
    t.same(await ask(search, fdOf(accepted)), truth)
    t.same([honest.exacts, honest.dumps], [1, 0])
    search.close()

    const liar = lying()
    const others = new PeerSearch(liar)
    t.same(await ask(others, fdOf(accepted)), truth)
    t.same([liar.exacts, liar.dumps], [1, 1])
    others.close()
  })
}

t.test('a lie that is the truth of another connection', async (t) => {
  const place = await listen(t)
  const [a, b] = [await place.connect('127.0.0.30'), await place.connect('127.0.0.31')]
  libc.getpeername(fdOf(b.accepted))
  const ofB = libc.answer.slice(0, 28)
  const search = new PeerSearch(lying((answer) => { answer.set(ofB) }))
  t.same(await ask(search, fdOf(a.accepted)), ['127.0.0.30', a.client.localPort])
  t.same(await ask(search, fdOf(b.accepted)), ['127.0.0.31', b.client.localPort])
  search.close()
})

t.test('a lie of another family, and one of the listener\'s', async (t) => {
  const place = await listen(t)
  const { client, accepted } = await place.connect()
  for (const lie of [
    (answer: Uint8Array) => { answer.set(new Uint8Array(new Uint16Array([10]).buffer)) },
    (answer: Uint8Array) => { answer.fill(0, 2, 28) }
  ]) {
    const search = new PeerSearch(lying(lie))
    t.same(await ask(search, fdOf(accepted)), ['127.0.0.1', client.localPort])
    search.close()
  }
})

t.test('one dump serves all that wait, and may not follow the one before at once', async (t) => {
  const place = await listen(t)
  const pairs: Pair[] = []
  for (let n = 0; n < 40; n++) pairs.push(await place.connect(`127.0.0.${32 + n % 8}`))
  // Each look at the clock is a millisecond later: a dump takes one, and the next may begin nineteen later.
  let clock = 0
  const liar = lying()
  const search = new PeerSearch(liar, ignore, () => ++clock)
  let settled = 0
  const answers = pairs.map(({ accepted }) => ask(search, fdOf(accepted)).finally(() => { settled++ }))
  await answers[0]
  await new Promise((resolve) => setImmediate(resolve))
  t.equal(liar.dumps < 5, true, `${liar.dumps} dumps`)
  t.ok(settled < 40, `${settled} are settled at once`)
  // The first dump, one by and by, and one when the timer says so.
  t.same(await Promise.all(answers), pairs.map(({ client }) => [client.localAddress, client.localPort]))
  t.ok(liar.dumps <= 4, `${liar.dumps} dumps for ${liar.exacts} connections`)
  search.close()
})

t.test('a connection that has gone, and what is none', async (t) => {
  const place = await listen(t)
  const [first, gone] = [await place.connect(), await place.connect()]
  let clock = 0
  const search = new PeerSearch(lying(), ignore, () => ++clock)
  t.same(await ask(search, fdOf(first.accepted)), ['127.0.0.1', first.client.localPort])
  const answer = ask(search, fdOf(gone.accepted))
  gone.client.on('error', () => {})
  gone.accepted.resetAndDestroy()
  t.same(await answer, [undefined, 0], 'gone while it waits')
  t.same(await ask(search, -1), [undefined, 0], 'no descriptor')
  t.same(await ask(search, fdOf(place.server)), [undefined, 0], 'a listener')
  search.close()
})

t.test('what is no connection never has the peer of the one before', async (t) => {
  const place = await listen(t)
  const { client, accepted } = await place.connect()
  const search = new PeerSearch(libc)
  const truth = ['127.0.0.1', client.localPort]
  for (const fd of [-1, fdOf(place.server)]) {
    t.same(await ask(search, fdOf(accepted)), truth)
    t.same(await ask(search, fd), [undefined, 0])
  }
  search.close()
})

t.test('close() settles those that wait, with nothing', async (t) => {
  const place = await listen(t)
  const [first, waiting] = [await place.connect(), await place.connect()]
  let clock = 0
  const search = new PeerSearch(lying(), ignore, () => ++clock)
  await ask(search, fdOf(first.accepted))
  const answer = ask(search, fdOf(waiting.accepted))
  search.close()
  t.same(await answer, [undefined, 0])
  search.close()
})

t.test('those of different listeners wait for the same moment, and a dump each', async (t) => {
  const places = [await listen(t), await listen(t)]
  const first = await places[0]!.connect()
  const pairs = [await places[0]!.connect(), await places[1]!.connect(), await places[0]!.connect()]
  let clock = 0
  const liar = lying()
  const search = new PeerSearch(liar, ignore, () => ++clock)
  await ask(search, fdOf(first.accepted))
  const before = liar.dumps
  const answers = await Promise.all(pairs.map(({ accepted }) => ask(search, fdOf(accepted))))
  t.same(answers, pairs.map(({ client }) => [client.localAddress, client.localPort]))
  t.equal(liar.dumps - before, 2)
  search.close()
})

t.test('a connection whose names or cookie the kernel does not give is not looked for', async (t) => {
  const { accepted } = await (await listen(t)).connect()
  const refused = { getsockname: () => constants.errno.ENOBUFS, getsockopt: () => constants.errno.ENOPROTOOPT }
  for (const [name, call] of Object.entries(refused)) {
    const liar = Object.assign(lying(), { [name]: call })
    const search = new PeerSearch(liar)
    t.same(await ask(search, fdOf(accepted)), [undefined, 0], name)
    t.same([liar.exacts, liar.dumps], [0, 0])
    search.close()
  }
})

t.test('where sock_diag fails nothing is known, and nobody waits', async (t) => {
  const place = await listen(t)
  const { client, accepted } = await place.connect()
  const fd = fdOf(accepted)
  const failing: Record<string, (diag: Diag) => Diag | number> = {
    'no socket': () => constants.errno.EPERM,
    'no request': (diag) => ({ ...diag, send: () => constants.errno.ECONNREFUSED }),
    'no answer': (diag) => ({ ...diag, receive: () => -constants.errno.EAGAIN }),
    'an empty answer': (diag) => ({ ...diag, receive: () => 0 }),
    'a short answer': (diag) => ({ ...diag, receive: () => Math.min(diag.receive(), 15) }),
    nonsense: (diag) => ({
      ...diag,
      receive () {
        diag.buffer.fill(255, 0, 500)
        return 500
      }
    })
  }
  for (const [name, fail] of Object.entries(failing)) {
    let opened = 0
    let closed = 0
    const search = new PeerSearch({
      ...lying(),
      openDiag () {
        const diag = libc.openDiag() as Diag
        const failing = fail(diag)
        if (typeof failing === 'number') {
          diag.close()
          return failing
        }
        opened++
        return {
          ...failing,
          close () {
            closed++
            diag.close()
          }
        }
      }
    })
    t.same(await ask(search, fd), [undefined, 0], name)
    t.notOk(search.disagrees(fd, createEndpoint()) && name === 'no socket', 'without sock_diag nobody can tell who lies')
    search.close()
    t.equal(opened, closed, `${name}: none is left open`)
  }
  // The first question costs the socket, and another is not to be had.
  let sockets = 0
  const poor = new PeerSearch({
    ...lying(),
    openDiag: () => sockets++ > 0 ? constants.errno.EMFILE : { ...libc.openDiag() as Diag, send: () => constants.errno.ECONNREFUSED }
  })
  t.same(await ask(poor, fd), [undefined, 0])
  t.equal(sockets, 2)
  // An errno in the middle of one connection is nothing to the next.
  let broken = true
  const liar = lying()
  const search = new PeerSearch({
    ...liar,
    openDiag () {
      const diag = liar.openDiag() as Diag
      return broken ? { ...diag, receive: () => -constants.errno.ENOBUFS } : diag
    }
  })
  t.same(await ask(search, fd), [undefined, 0])
  broken = false
  t.same(await ask(search, fd), ['127.0.0.1', client.localPort])
  search.close()
})
