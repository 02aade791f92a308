import { once } from 'node:events'
import net, { type AddressInfo } from 'node:net'
import os from 'node:os'
import t from 'tap'
import type { FastifyRealIpOptions } from 'fastify-real-ip'
import { fdOf } from '../../lib/node/sockets'
import { Course } from '../../lib/trust/evidence'
import { Guard, type Kernel } from '../../lib/trust/guard'
import { loadLibc, type Libc } from '../../lib/kernel/libc'
import { checkOptions } from '../../lib/options/options'
import { createResolve } from '../../lib/sources/resolve'
import type { Endpoint } from '../../lib/kernel/sockaddr'
import { chooseSources } from '../../lib/sources/choose'
import type { Source } from '../../lib/sources/source'
import { type Settle, TransportPeers } from '../../lib/kernel/peer-search'
import { Warnings } from '../../lib/warnings'
import { logOf } from './log'

// What is said of a connection that no system call can tell of.

const onLinux = { skip: process.platform !== 'linux' && 'not Linux' }

function create (options: FastifyRealIpOptions, native: boolean): Guard {
  const checked = checkOptions(options)
  const { logger } = logOf()
  let kernel: Kernel | undefined
  if (native) {
    const libc = loadLibc() as Libc
    const peers = new TransportPeers(libc)
    const resolve = createResolve(chooseSources(libc, peers, checked, () => {}))
    kernel = { peers, resolve, witnesses: [], readVirtualServer: undefined }
  }
  return new Guard(checked, kernel, logger, new Warnings(logger), false)
}

const said = (guard: Guard, socket: object, fd: number) => guard.answer(guard.examine(socket, fd))

t.test('where no system call can be made, and where there is no descriptor', onLinux, async (t) => {
  const socket = { remoteAddress: '192.0.2.7', remotePort: 80 }
  const peer = { address: '192.0.2.7', port: 80, source: 'peer', trust: 'unchecked', attempts: [] }
  t.match(said(create({}, false), socket, 3), { ...peer, reason: 'native-unavailable' })
  t.match(said(create({}, true), socket, -1), { ...peer, reason: 'no-fd' })
  t.match(said(create({}, true), { ...socket, destroyed: false }, -1), { ...peer, reason: 'no-fd' })
  t.match(said(create({ trustedPeers: [] }, false), socket, 3), { address: undefined, source: 'none', trust: 'unverified', reason: 'unverified-peer' })
  const believing = create({ trustedPeers: [], unverified: 'believe' }, true)
  t.match(said(believing, socket, -1), { ...peer, trust: 'unverified', reason: 'unverified-peer' })
  t.match(said(create({ trustedPeers: [] }, true), socket, -1), { address: undefined, source: 'none', trust: 'unverified', reason: 'unverified-peer' })
})

t.test('a connection that was gone before anybody looked', onLinux, async (t) => {
  const server = net.createServer().listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await once(server, 'listening')
  const client = net.connect((server.address() as AddressInfo).port, '127.0.0.1')
  t.teardown(() => client.destroy())
  const [accepted] = await once(server, 'connection') as [net.Socket]
  accepted.destroy()
  t.match(said(create({}, true), accepted, fdOf(accepted)), { address: undefined, source: 'none', reason: 'closed', attempts: [] })
})

t.test('of many claims of vtoa one is compared to what getpeername says', async (t) => {
  let compared = 0
  const peers = { armed: false, disagrees: () => ++compared > 1 } as unknown as TransportPeers
  const course = new Course(['vtoa'])
  const resolve = (_fd: number, claim: Endpoint) => {
    Object.assign(claim, { family: 'IPv4', port: 80, w3: 0xcb007107 | 0 })
    return course
  }
  const { logger, codes } = logOf()
  const guard = new Guard(checkOptions({}), { peers, resolve, witnesses: [], readVirtualServer: undefined }, logger, new Warnings(logger), false)
  for (let n = 0; n < 1024; n++) guard.examine({}, 3)
  t.equal(compared, 1)
  t.same(codes, [])
  t.match(guard.answer(guard.examine({}, 3)), { address: '203.0.113.7', source: 'vtoa' })
  t.equal(compared, 2)
  t.same(codes, ['FST_REAL_IP_DISAGREE'])
})

const BALANCER = { family: 'IPv4', port: 4000, w0: 0, w1: 0, w2: 0, w3: 0xc0000201 | 0 } as const
const CLIENT = { ...BALANCER, port: 80, w3: 0xcb007107 | 0 }
const OTHER = { ...CLIENT, port: 81 }

/** A kernel in which the balancer sent all SYNs, and vtoa says that they are the client's. */
const behindBalancer: Kernel = {
  peers: {
    armed: true,
    readSavedSyn (_fd: number, into: Endpoint) { return Boolean(Object.assign(into, BALANCER)) },
    disagrees: () => false
  } as unknown as TransportPeers,
  resolve (_fd, into) {
    Object.assign(into, CLIENT)
    return new Course(['vtoa'])
  },
  witnesses: [],
  readVirtualServer: undefined
}

t.test('what a witness said of one connection is nothing to the next', async (t) => {
  let silent = false
  const witness: Source = {
    name: 'saved-syn',
    read: (_fd, into) => silent ? 'no-toa' : Object.assign(into, OTHER) && undefined,
    missing: () => undefined
  }
  const { logger } = logOf()
  const guard = new Guard(checkOptions({ trustedPeers: ['192.0.2.1'] }), { ...behindBalancer, witnesses: [witness] }, logger, new Warnings(logger), false)
  t.match(said(guard, {}, 3), { address: '192.0.2.1', reason: 'ambiguous' })
  silent = true
  t.match(said(guard, {}, 3), { address: '203.0.113.7', reason: undefined })
})

t.test('descriptor 0 is asked like any other', async (t) => {
  const asked: number[] = []
  const peers = {
    armed: false,
    readSavedSyn: () => false,
    disagrees: () => false,
    ask (fd: number, settle: Settle) {
      asked.push(fd)
      settle(undefined, 0)
    }
  } as unknown as TransportPeers
  const readVirtualServer = (fd: number) => {
    asked.push(fd)
    return undefined
  }
  const { logger } = logOf()
  const options = checkOptions({ trustedPeers: [], virtualServer: true })
  new Guard(options, { ...behindBalancer, peers, readVirtualServer }, logger, new Warnings(logger), false).examine({}, 0)
  t.same(asked, [0, 0])
})

t.test('where the addresses of this host cannot be had, no peer is taken for it', async (t) => {
  const { logger, codes } = logOf()
  const guard = new Guard(checkOptions({ trustedPeers: [] }), behindBalancer, logger, new Warnings(logger), false)
  t.intercept(os, 'networkInterfaces', { value: () => { throw new Error('EMFILE') } })
  t.match(said(guard, {}, 3), { address: '192.0.2.1', trust: 'untrusted' })
  t.same(codes, [])
})

t.test('what a function of the user throws is logged, with the error', async (t) => {
  const lines: unknown[] = []
  const { logger } = logOf()
  Object.assign(logger, { error: (...line: unknown[]) => { lines.push(line) } })
  const error = new Error('not today')
  const guard = new Guard(checkOptions({ admit: () => { throw error } }), undefined, logger, new Warnings(logger), false)
  guard.examine({ remoteAddress: '192.0.2.7' }, 3)
  t.match(lines, [[{ err: error }, /^fastify-real-ip: .*admit/]])
})
