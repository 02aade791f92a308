import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import { constants } from 'node:os'
import t, { type Test } from 'tap'
import { loadLibc, type Diag, type Libc } from '../../lib/kernel/libc'
import { formatAddress } from '../../lib/address/address'
import { createEndpoint } from '../../lib/kernel/sockaddr'
import { PeerSearch } from '../../lib/kernel/peer-search'
import { fdOf } from '../../lib/node/sockets'
import { noIPv6 } from '../kinds'

if (process.platform !== 'linux') {
  t.plan(0, 'sock_diag is Linux\'s')
  process.exit()
}

const libc = loadLibc() as Libc

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
      if (errno === 0) lie(libc.bytes)
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
    const search = new PeerSearch(honest, ignore)
    t.same(await ask(search, fdOf(accepted)), truth)
    t.same([honest.exacts, honest.dumps], [1, 0])
    search.close()

    const liar = lying()
    const others = new PeerSearch(liar, ignore)
    t.same(await ask(others, fdOf(accepted)), truth)
    t.same([liar.exacts, liar.dumps], [1, 1])
    others.close()
  })
}

t.test('a lie that is the truth of another connection', async (t) => {
  const place = await listen(t)
  const [a, b] = [await place.connect('127.0.0.30'), await place.connect('127.0.0.31')]
  libc.getpeername(fdOf(b.accepted))
  const ofB = libc.bytes.slice(0, 28)
  const search = new PeerSearch(lying((answer) => { answer.set(ofB) }), ignore)
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
    const search = new PeerSearch(lying(lie), ignore)
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
  const search = new PeerSearch(libc, ignore)
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
    const search = new PeerSearch(liar, ignore)
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
    }, ignore)
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
  }, ignore)
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
  }, ignore)
  t.same(await ask(search, fd), [undefined, 0])
  broken = false
  t.same(await ask(search, fd), ['127.0.0.1', client.localPort])
  search.close()
})

/** Timers that the test lets elapse. */
function holdTimers (t: Test): Array<{ callback: () => void, milliseconds: number }> {
  const timers: Array<{ callback: () => void, milliseconds: number }> = []
  t.intercept(globalThis, 'setTimeout', {
    value (callback: () => void, milliseconds: number) {
      timers.push({ callback, milliseconds })
      return { unref () { return this } }
    }
  })
  return timers
}

t.test('however long a dump took, the next one begins within 200 ms of a new need', async (t) => {
  const place = await listen(t)
  const pairs = [await place.connect(), await place.connect(), await place.connect()] as const
  for (const [took, pause] of [[1, 19], [5, 95], [10_000, 200]] as const) {
    // Looked at before and after a dump, and once for each that has to wait.
    let clock = 0
    let steps: number = took
    const liar = lying()
    const search = new PeerSearch(liar, ignore, () => {
      clock += steps
      return clock
    })
    const first = await ask(search, fdOf(pairs[0].accepted))
    t.same(first, ['127.0.0.1', pairs[0].client.localPort])
    steps = 0
    const timers = holdTimers(t)
    const [second, third] = [ask(search, fdOf(pairs[1].accepted)), ask(search, fdOf(pairs[2].accepted))]
    t.same(timers.map(({ milliseconds }) => milliseconds), [pause], `after ${took} ms: one timer for all that wait`)
    t.equal(liar.dumps, 1)
    timers[0]?.callback()
    t.same(await Promise.all([second, third]), [pairs[1], pairs[2]].map(({ client }) => ['127.0.0.1', client.localPort]))
    t.equal(liar.dumps, 2)
    search.close()
  }
})

t.test('a dump is asked for connections alone that can be waited for, and others are many', async (t) => {
  const place = await listen(t)
  const states: number[] = []
  const liar = lying()
  const search = new PeerSearch({
    ...liar,
    openDiag () {
      const diag = liar.openDiag() as Diag
      return {
        ...diag,
        receive () {
          const length = diag.receive()
          const words = new Uint32Array(diag.buffer.buffer, diag.buffer.byteOffset, diag.buffer.length >> 2)
          // struct nlmsghdr, and idiag_state of struct inet_diag_msg; answers to the exact question have no NLM_F_MULTI.
          for (let at = 0; at < length; at += words[at >> 2]! + 3 & ~3) {
            if ((words[(at >> 2) + 1]! & 0xffff) === 20 && (words[(at >> 2) + 1]! >>> 16 & 2) !== 0) states.push(diag.buffer[at + 17]!)
          }
          return length
        }
      }
    }
  }, ignore)
  const [open, halfClosed, left] = [await place.connect(), await place.connect(), await place.connect()]
  halfClosed.accepted.on('end', () => {}).resume()
  halfClosed.accepted.allowHalfOpen = true
  const ended = once(halfClosed.accepted, 'end')
  halfClosed.client.end()
  await ended
  // The server closes first: TIME_WAIT is on its side.
  const closed = once(left.client, 'close')
  left.client.resume()
  left.accepted.end()
  await closed
  t.same(await ask(search, fdOf(halfClosed.accepted)), ['127.0.0.1', halfClosed.client.localPort], 'CLOSE_WAIT')
  t.same(await ask(search, fdOf(open.accepted)), ['127.0.0.1', open.client.localPort], 'ESTABLISHED')
  t.ok(states.length > 0)
  t.same([...new Set(states)].filter((state) => state !== 1 && state !== 8), [], 'TCP_ESTABLISHED and TCP_CLOSE_WAIT')
  search.close()
})

t.test('one callback that throws strands nobody else', async (t) => {
  const place = await listen(t)
  const pairs = [await place.connect(), await place.connect(), await place.connect(), await place.connect()]
  const errors: unknown[] = []
  let clock = 0
  const search = new PeerSearch(lying(), (error) => { errors.push(error) }, () => ++clock)
  await ask(search, fdOf(pairs[0]!.accepted))
  const failures = [new Error('first'), new Error('last')]
  search.ask(fdOf(pairs[1]!.accepted), () => { throw failures[0] })
  const found = ask(search, fdOf(pairs[2]!.accepted))
  t.same(await found, ['127.0.0.1', pairs[2]!.client.localPort])
  t.same(errors, [failures[0]])

  // And at the end of the server.
  search.ask(fdOf(pairs[1]!.accepted), () => { throw failures[1] })
  const left = ask(search, fdOf(pairs[3]!.accepted))
  search.close()
  await left
  t.same(errors, failures)
})

t.test('who has not finished the handshake, or sent data with the SYN, may be anybody', async (t) => {
  const place = await listen(t)
  const { client, accepted } = await place.connect()
  // <linux/tcp.h>: tcpi_state, tcpi_options
  const infos: Array<[what: string, state: number, options: number, isKnown: boolean]> = [
    ['an ordinary connection', 1, 0x07, true],
    ['a handshake that is not finished', 3, 0, false],
    ['data on the SYN', 1, 0x20, false],
    ['data on the SYN, and others', 8, 0x3f, false]
  ]
  for (const [what, state, options, isKnown] of infos) {
    const liar = lying(() => {})
    const search = new PeerSearch(Object.assign(liar, {
      getsockopt (fd: number, level: number, optname: number) {
        const errno = libc.getsockopt(fd, level, optname)
        if (level === 6 && optname === 11) {
          libc.bytes[0] = state
          libc.bytes[5] = options
        }
        return errno
      }
    }), ignore)
    t.same(await ask(search, fdOf(accepted)), isKnown ? ['127.0.0.1', client.localPort] : [undefined, 0], what)
    if (!isKnown) t.same([liar.exacts, liar.dumps], [0, 0])
    search.close()
  }
})

t.test('disagrees() compares what getpeername gives by the family of its own answer', { skip: noIPv6 }, async (t) => {
  const place = await listen(t)
  const { client, accepted } = await place.connect()
  const claim = { ...createEndpoint(), family: 'IPv6', w0: 0x20010db8, w3: 7, port: 80 } as const
  const rewritten = lying((answer) => {
    answer.fill(0, 0, 28)
    answer.set(new Uint8Array(new Uint16Array([10]).buffer))
    answer.set([0, 80], 2)
    answer.set([0x20, 0x01, 0x0d, 0xb8], 8)
    answer[23] = 7
  })
  const search = new PeerSearch(rewritten, ignore)
  t.notOk(search.disagrees(fdOf(accepted), claim), 'it is the claim')
  t.ok(search.disagrees(fdOf(accepted), { ...claim, w3: 8 }))
  search.close()
  const honest = new PeerSearch(libc, ignore)
  t.notOk(honest.disagrees(fdOf(accepted), claim), 'it is the transport peer')
  t.equal(client.destroyed, false)
  honest.close()
})

t.test('sock_diag is tried: refused, silent, or answering', async (t) => {
  const honest = new PeerSearch(libc, ignore)
  t.ok(honest.isUsable())
  t.ok(honest.isUsable(), 'the socket is kept')
  honest.close()
  const refusing = new PeerSearch({ ...libc, openDiag: () => constants.errno.EACCES } as Libc, ignore)
  t.notOk(refusing.isUsable())
  const silent = new PeerSearch({
    ...libc,
    openDiag: () => ({ buffer: new Uint8Array(4096), send: () => 0, receive: () => -constants.errno.EAGAIN, close () {} })
  } as unknown as Libc, ignore)
  t.notOk(silent.isUsable())
})
