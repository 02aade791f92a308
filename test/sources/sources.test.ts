import t from 'tap'
import { constants } from 'node:os'
import type { Libc } from '../../lib/kernel/libc'
import { createEndpoint, SOCKADDR_STORAGE } from '../../lib/kernel/sockaddr'
import { Getpeername } from '../../lib/sources/getpeername'
import { Nat64 } from '../../lib/sources/nat64'
import { Vtoa } from '../../lib/sources/vtoa'
import { createVirtualServerReader } from '../../lib/kernel/virtual-server'

/** Answers with what `next` says: a sockaddr, or an errno. */
function fakeLibc (next: () => Uint8Array | number): Libc & { asked: number } {
  const answer = new Uint8Array(SOCKADDR_STORAGE)
  const family = new Uint16Array(answer.buffer, 0, 1)
  function call (): number {
    libc.asked++
    answer.fill(0)
    const result = next()
    if (typeof result === 'number') return result
    answer.set(result)
    return 0
  }
  const libc = {
    asked: 0,
    bytes: answer,
    sockaddr: new DataView(answer.buffer),
    family: () => family[0] as number,
    getsockopt: call,
    getpeername: call,
    setsockopt: call,
    getsockname: call,
    savedSyn: answer,
    readSavedSyn: () => 0,
    peeked: answer,
    peek: call,
    drop: call,
    withSocket: (probe: (fd: number) => void) => probe(3),
    openDiag: call
  }
  return libc
}

const sockaddr = Uint8Array.of(2, 0, 0, 80, 203, 0, 113, 7)
const { ENOPROTOOPT, ESRCH } = constants.errno as Record<string, number> as { ENOPROTOOPT: number, ESRCH: number }

// getsockopt(2), getpeername(2), and what the module family adds.
const errnos = ['EBADF', 'EFAULT', 'EINVAL', 'ENOPROTOOPT', 'ENOTSOCK', 'ENOBUFS', 'ENOTCONN', 'ESRCH', 'EPERM',
  'EACCES', 'EOPNOTSUPP', 'ENOMEM', 'EDOM'] as const

for (const Source of [Vtoa, Getpeername]) {
  t.test(`${Source.name}: every errno is a reason, by its name`, async (t) => {
    for (const name of errnos) {
      const into = createEndpoint()
      const source = new Source(fakeLibc(() => constants.errno[name]))
      t.equal(source.read(5, into), name)
      t.same(into, createEndpoint(), 'and the endpoint stays as it was')
    }
  })

  t.test(`${Source.name}: success with an absurd or no family is a reason`, async (t) => {
    const answers = [Uint8Array.of(77, 0, 1, 1, 1, 1, 1, 1), Uint8Array.of(), Uint8Array.of(1, 0), Uint8Array.of(2, 2, 0, 80)]
    for (const answer of answers) {
      const into = createEndpoint()
      t.equal(new Source(fakeLibc(() => answer)).read(5, into), 'bad-family')
      t.same(into, createEndpoint())
    }
  })
}

t.test('1348 is skipped while the kernel does not know it, and asked again within two seconds', async (t) => {
  let module = false
  const timers: Array<() => void> = []
  const libc = fakeLibc(() => module ? sockaddr : ENOPROTOOPT)
  const source = new Vtoa(libc, (callback, milliseconds) => {
    t.ok(milliseconds < 2000)
    timers.push(callback)
  })
  const into = createEndpoint()

  t.equal(source.read(5, into), 'ENOPROTOOPT')
  t.equal(source.read(5, into), 'ENOPROTOOPT')
  t.equal(libc.asked, 1, 'the second connection did not ask')
  module = true
  t.equal(timers.length, 1)
  timers.forEach((elapse) => elapse())
  t.equal(source.read(5, into), undefined)
  t.equal(into.port, 80)
  module = false
  t.equal(source.read(5, into), 'ENOPROTOOPT', 'a module stopped is seen at once')
  t.equal(libc.asked, 3)
})

t.test('by itself 1348 is asked again when a timer says so, which keeps no process alive', async (t) => {
  const timers: Array<{ readonly callback: () => void, readonly milliseconds: number, alive: boolean }> = []
  t.intercept(globalThis, 'setTimeout', {
    value (callback: () => void, milliseconds: number) {
      const timer = { callback, milliseconds, alive: true, unref () { timer.alive = false } }
      timers.push(timer)
      return timer
    }
  })
  const libc = fakeLibc(() => ENOPROTOOPT)
  const source = new Vtoa(libc)
  for (let n = 0; n < 3; n++) t.equal(source.read(5, createEndpoint()), 'ENOPROTOOPT')
  t.same(timers.map(({ milliseconds, alive }) => ({ milliseconds, alive })), [{ milliseconds: 1000, alive: false }])
  timers[0]?.callback()
  source.read(5, createEndpoint())
  t.equal(libc.asked, 2)
})

t.test('each source by its name', async (t) => {
  const libc = fakeLibc(() => 0)
  t.same([Vtoa, Nat64, Getpeername].map((Source) => new Source(libc).name), ['vtoa', 'nat64', 'getpeername'])
})

t.test('1348 is asked for every connection while a module answers, also where it has nothing', async (t) => {
  const libc = fakeLibc(() => ESRCH)
  const source = new Vtoa(libc)
  for (let n = 0; n < 5; n++) t.equal(source.read(5, createEndpoint()), 'ESRCH')
  t.equal(libc.asked, 5)
})

t.test("nat64: DPVS's answer is an address and a port, no sockaddr", async (t) => {
  const into = createEndpoint()
  const answering = (address: string, ...rest: number[]) => new Nat64(fakeLibc(() => Buffer.concat([Buffer.from(address, 'hex'), Buffer.of(...rest)])))
  t.equal(answering('20010db8000000010000000200000007', 0xc8, 0x22, 255, 255).read(5, into), undefined)
  t.same(into, { family: 'IPv6', w0: 0x20010db8, w1: 1, w2: 2, w3: 7, port: 51234 })
  t.equal(answering('00000000000000000000ffffcb007107', 0, 80, 255, 255).read(5, into), undefined)
  t.same(into, { family: 'IPv4', w0: 0, w1: 0, w2: 0, w3: 0xcb007107 | 0, port: 80 })
  for (const name of ['EINVAL', 'EFAULT', 'ENOPROTOOPT'] as const) t.equal(new Nat64(fakeLibc(() => constants.errno[name])).read(5, into), name)
  t.match(new Nat64(fakeLibc(() => ENOPROTOOPT)).missing(), /DPVS/)
  t.equal(new Nat64(fakeLibc(() => constants.errno.EINVAL)).missing(), undefined)
})

t.test('a virtual server of an absurd family is none', async (t) => {
  const answer = new Uint8Array(24)
  answer[20] = 77
  t.equal(createVirtualServerReader(fakeLibc(() => answer))(5), undefined)
})

/** What vtoa answers to 1347, or to 1345: in the machine's own byte order but for address and port. */
function virtualServer (bytes: number, vpcId: number, address: Uint8Array, family?: number): Uint8Array {
  const answer = Buffer.alloc(bytes)
  new Uint32Array(answer.buffer, answer.byteOffset, 1)[0] = vpcId
  answer.set(address, 4)
  if (family !== undefined) new Uint16Array(answer.buffer, answer.byteOffset + 20, 1)[0] = family
  answer.writeUInt16BE(8080, bytes === 24 ? 22 : 8)
  return answer
}

t.test('the virtual server, as each of the two optnames gives it', async (t) => {
  const v4 = Uint8Array.of(203, 0, 113, 7)
  const v6 = Uint8Array.of(0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7)
  const [AF_INET, AF_INET6] = [2, 10]
  const readAll = (...answers: Array<Uint8Array | number>) => {
    const read = createVirtualServerReader(fakeLibc(() => answers.shift() ?? ENOPROTOOPT))
    return () => read(5)
  }

  const both = readAll(virtualServer(24, 9, v6, AF_INET6), virtualServer(24, 9, v4, AF_INET))
  t.same(both(), { vpcId: 9, address: '2001:db8::7', family: 'IPv6', port: 8080 })
  t.same(both(), { vpcId: 9, address: '203.0.113.7', family: 'IPv4', port: 8080 }, 'nothing of the one before')

  const older = readAll(ESRCH, virtualServer(10, 9, v4))
  t.same(older(), { vpcId: 9, address: '203.0.113.7', family: 'IPv4', port: 8080 }, 'where the first has nothing, the other')
  t.equal(older(), undefined, 'where neither has')

  for (const none of [0, 0xffffff]) t.match(readAll(virtualServer(24, none, v4, AF_INET))(), { vpcId: undefined, address: '203.0.113.7' })
  // A vtoa that keeps 32 bytes of an option answers so for kind 249, which it has not kept.
  const notKept = [virtualServer(24, 0xffffff, new Uint8Array(16), AF_INET6), virtualServer(24, 0xffffff, new Uint8Array(4), AF_INET)]
  for (const answer of notKept) t.equal(readAll(answer)(), undefined, 'no virtual server')
  const portless = virtualServer(24, 9, v4, AF_INET)
  portless.fill(0, 22)
  t.match(readAll(portless)(), { address: '203.0.113.7', port: undefined })
})

t.test('vtoa is missing only where the kernel does not know 1348', async (t) => {
  t.match(new Vtoa(fakeLibc(() => ENOPROTOOPT)).missing(), /vtoa/)
  t.equal(new Vtoa(fakeLibc(() => ESRCH)).missing(), undefined)
  t.equal(new Getpeername(fakeLibc(() => ESRCH)).missing(), undefined)
})
