import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import os from 'node:os'
import t from 'tap'
import type { FastifyRealIpOptions, RealAddress } from 'fastify-real-ip'
import { Arrivals } from '../../lib/http/arrivals'
import { Owners } from '../../lib/http/owners'
import { loadLibc, type Libc } from '../../lib/kernel/libc'
import type { PeerSearch } from '../../lib/kernel/peer-search'
import type { Syn, SynReader } from '../../lib/kernel/saved-syn'
import type { Endpoint } from '../../lib/kernel/sockaddr'
import { Remembered } from '../../lib/node/remembered'
import { fdOf } from '../../lib/node/sockets'
import { checkOptions } from '../../lib/options/options'
import { type KernelAccess, openKernel, Senders } from '../../lib/sources/choose'
import { Course } from '../../lib/sources/course'
import { SavedSyn } from '../../lib/sources/saved-syn'
import type { Source } from '../../lib/sources/source'
import type { Evidence } from '../../lib/trust/checked'
import { Guard } from '../../lib/trust/guard'
import { Judge } from '../../lib/trust/judge'
import { Suspicions } from '../../lib/trust/suspicions'
import { Tally } from '../../lib/trust/tally'
import { Warnings } from '../../lib/warnings'
import { logOf } from './log'

// What is said of a connection that no system call can tell of.

const onLinux = { skip: process.platform !== 'linux' && 'not Linux' }

interface Parts {
  readonly codes: string[]
  readonly judge: Judge
  readonly guard: Guard
  readonly arrivals: Arrivals
  /** What is said of a connection whose sender is not looked for any more. */
  said (socket: object, fd: number): RealAddress
}

/** The parts of the plugin beside a kernel of the test's own. */
function create (given: FastifyRealIpOptions, kernel?: KernelAccess, { logger, codes } = logOf()): Parts {
  const options = checkOptions(given)
  const warnings = new Warnings(logger)
  const judge = new Judge(options, warnings.error)
  const suspicions = new Suspicions(warnings, false, () => false)
  const guard = new Guard(kernel, { hasPolicy: judge.hasPolicy, canRefuse: judge.canRefuse, trustsRemote: false }, suspicions)
  const owners = new Owners()
  if (kernel !== undefined) owners.shareSenders(() => kernel.senders as Senders)
  owners.put({ options, judge, guard, suspicions, warnings, tally: new Tally(), headers: undefined })
  return {
    codes,
    judge,
    guard,
    arrivals: new Arrivals(owners, new Remembered()),
    said: (socket, fd) => judge.answer(guard.examine(socket, fd, guard.readSender(fd)) as Evidence)
  }
}

/** The same beside this machine's kernel. */
function native (options: FastifyRealIpOptions): Parts {
  const senders = new Senders(loadLibc() as Libc, console.error)
  return create(options, openKernel(senders, checkOptions(options), () => {}))
}

t.test('where no system call can be made, and where there is no descriptor', onLinux, async (t) => {
  const socket = { remoteAddress: '192.0.2.7', remotePort: 80 }
  const peer = { address: '192.0.2.7', port: 80, source: 'peer', trust: 'unchecked', attempts: [] }
  t.match(create({}).said(socket, 3), { ...peer, reason: 'native-unavailable' })
  t.match(native({}).said(socket, -1), { ...peer, reason: 'no-fd' })
  t.match(native({}).said({ ...socket, destroyed: false }, -1), { ...peer, reason: 'no-fd' })
  t.match(create({ trustedPeers: [] }).said(socket, 3), { address: undefined, source: 'none', trust: 'unverified', reason: 'unverified-peer' })
  const believing = native({ trustedPeers: [], unverified: 'believe' })
  t.match(believing.said(socket, -1), { ...peer, trust: 'unverified', reason: 'unverified-peer' })
  t.match(native({ trustedPeers: [] }).said(socket, -1), { address: undefined, source: 'none', trust: 'unverified', reason: 'unverified-peer' })
})

t.test('a connection that was gone before anybody looked', onLinux, async (t) => {
  const server = net.createServer().listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await once(server, 'listening')
  const client = net.connect((server.address() as AddressInfo).port, '127.0.0.1')
  t.teardown(() => client.destroy())
  const [accepted] = await once(server, 'connection') as [net.Socket]
  accepted.destroy()
  t.match(native({}).said(accepted, fdOf(accepted)), { address: undefined, source: 'none', reason: 'closed', attempts: [] })
})

/** What is asked of a search in these tests. */
function senders (syn: Partial<SynReader>, search: Partial<PeerSearch> = {}): KernelAccess['senders'] {
  return {
    isArmed: false,
    syn: { read: () => false, forget () {}, ...syn } as SynReader,
    search: { disagrees: () => false, ...search } as PeerSearch
  }
}

/** A connection as Node.js hands it over. */
const socketOf = (fd: number) => ({ _handle: { fd, getpeername () {} } })

t.test('of many claims of vtoa one is compared to what getpeername says', async (t) => {
  let compared = 0
  const course = new Course(['vtoa'])
  const { codes, guard, said } = create({}, {
    senders: senders({}, { disagrees: () => ++compared > 1 }),
    resolve (_fd, claim) {
      Object.assign(claim, { family: 'IPv4', port: 80, w3: 0xcb007107 | 0 })
      return course
    },
    witnesses: [],
    readVirtualServer: undefined,
    readLocal: () => false
  })
  for (let n = 0; n < 1024; n++) guard.examine({}, 3, undefined)
  t.equal(compared, 1)
  t.same(codes, [])
  t.match(said({}, 3), { address: '203.0.113.7', source: 'vtoa' })
  t.equal(compared, 2)
  t.same(codes, ['FST_REAL_IP_DISAGREE'])
})

const BALANCER = { family: 'IPv4', port: 4000, w0: 0, w1: 0, w2: 0, w3: 0xc0000201 | 0 } as const
const CLIENT = { ...BALANCER, port: 80, w3: 0xcb007107 | 0 }
const OTHER = { ...CLIENT, port: 81 }

/** A kernel in which the balancer sent all SYNs, and vtoa says that they are the client's. */
const behindBalancer: KernelAccess = {
  senders: senders({ read: (_fd: number, into: Endpoint) => Boolean(Object.assign(into, BALANCER)) }),
  resolve (_fd, into) {
    Object.assign(into, CLIENT)
    return new Course(['vtoa'])
  },
  witnesses: [],
  readVirtualServer: undefined,
  readLocal: () => false
}

t.test('what a witness said of one connection is nothing to the next', async (t) => {
  let silent = false
  const witness: Source = {
    name: 'saved-syn',
    read: (_fd, into) => silent ? 'no-toa' : Object.assign(into, OTHER) && undefined,
    missing: () => undefined
  }
  const { said } = create({ trustedPeers: ['192.0.2.1'], invalid: 'ignore' }, { ...behindBalancer, witnesses: [witness] })
  t.match(said({}, 3), { address: '192.0.2.1', reason: 'ambiguous' })
  silent = true
  t.match(said({}, 3), { address: '203.0.113.7', reason: undefined })
})

t.test('the SYN that was read last is nothing to a connection whose sender was searched for', async (t) => {
  const formats = [{ kind: 254, length: 8, family: 'IPv4', position: 'first' }] as const
  // 40 bytes of IPv4 and TCP headers, and the option of another connection: 203.0.113.9, port 80.
  const bytes = new Uint8Array(48)
  bytes.set([0x45, 0, 0, 48])
  bytes[20 + 12] = 7 << 4
  bytes.set([254, 8, 0, 80, 203, 0, 113, 9], 40)
  const syn: Syn & { forget (): void } = {
    bytes,
    length: 48,
    tcp: 20,
    forget () { Object.assign(this, { length: 0, tcp: -1 }) }
  }
  const source = new SavedSyn(syn, formats)
  const { guard, judge } = create({ trustedPeers: ['192.0.2.1'], sources: ['saved-syn'], toa: [...formats] }, {
    ...behindBalancer,
    senders: { ...behindBalancer.senders, syn: syn as SynReader },
    resolve: (fd, into) => source.read(fd, into) === undefined ? new Course(['saved-syn']) : new Course(['saved-syn']).after('no-saved-syn')
  })
  const evidence = guard.examine({}, 3, { ...BALANCER }) as Evidence
  t.match(judge.answer(evidence), { address: '192.0.2.1', source: 'transport-peer', reason: 'no-toa', attempts: [{ reason: 'no-saved-syn' }] })
})

t.test('descriptor 0 is asked like any other', async (t) => {
  const asked: string[] = []
  const { arrivals } = create({ trustedPeers: [], virtualServer: true }, {
    ...behindBalancer,
    senders: senders({}, {
      ask (fd, found) {
        asked.push(`search ${fd}`)
        found(undefined)
      }
    }),
    readVirtualServer (fd) {
      asked.push(`virtual server ${fd}`)
      return undefined
    }
  })
  t.ok(arrivals.accept(socketOf(0), net.createServer(), () => {}))
  t.same(asked, ['search 0', 'virtual server 0'])
})

t.test('where the addresses of this host cannot be had, no peer is taken for it', async (t) => {
  const { codes, arrivals, said } = create({ trustedPeers: [] }, behindBalancer)
  let asked = 0
  t.intercept(os, 'networkInterfaces', {
    value () {
      asked++
      throw new Error('EMFILE')
    }
  })
  t.match(said({}, 3), { address: '192.0.2.1', trust: 'untrusted' })
  t.ok(arrivals.accept(socketOf(3), net.createServer(), () => {}))
  t.equal(asked, 1)
  t.same(codes, [])
})

t.test('what a function of the user throws is logged, with the error', async (t) => {
  const lines: unknown[] = []
  const log = logOf()
  Object.assign(log.logger, { error: (...line: unknown[]) => { lines.push(line) } })
  const error = new Error('not today')
  const { arrivals } = create({ admit: () => { throw error } }, undefined, log)
  t.notOk(arrivals.accept({ remoteAddress: '192.0.2.7' }, net.createServer(), () => {}))
  t.match(lines, [[{ err: error }, /^fastify-real-ip: .*admit/]])
})
