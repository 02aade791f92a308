import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdirSync, readdirSync, readlinkSync, rmdirSync } from 'node:fs'
import * as http from 'node:http'
import type { AddressInfo } from 'node:net'
import { basename, dirname, join } from 'node:path'
import { setImmediate } from 'node:timers/promises'
import { getSystemErrorName } from 'node:util'
import type { Test } from 'tap'
import { kinds, listen } from '../kinds'
import { inLab } from './in-lab'
import { derivedAddress, openLab, type Lab, type Oracle, type OracleRun, type Stamp, type StampingClient } from './lab'

// What the lab promises the other tests, shown with bare system calls.

const IPPROTO_IP = 0
const OPTNAME_CLIENT = 1348
const AF_INET = 2
const AF_INET6 = 10
const IPPROTO_TCP = 6
const TCP_SAVE_SYN = 27
const TCP_SAVED_SYN = 28
const UNTOUCHED = 0xee

interface Answer { realIp: string, port?: number, source?: string }

interface SystemCalls {
  getsockopt (fd: number, level: number, optname: number, optval: Uint8Array, optlen: number[]): number
  setsockopt (fd: number, level: number, optname: number, optval: Uint8Array, optlen: number): number
  getpeername (fd: number, sockaddr: Uint8Array, len: number[]): number
  errno (): number
}

function bindSystemCalls (): SystemCalls {
  const koffi = require('koffi') as typeof import('koffi', { with: { 'resolution-mode': 'import' } })
  const libc = koffi.load(null)
  return {
    getsockopt: libc.func('int getsockopt(int fd, int level, int optname, _Inout_ uint8_t *optval, _Inout_ uint32_t *optlen)'),
    setsockopt: libc.func('int setsockopt(int fd, int level, int optname, const uint8_t *optval, uint32_t optlen)'),
    getpeername: libc.func('int getpeername(int fd, _Inout_ uint8_t *sockaddr, _Inout_ uint32_t *len)'),
    errno: () => koffi.errno()
  }
}

function decode (sockaddr: Buffer): Answer {
  const family = sockaddr.readUInt16LE(0)
  const port = sockaddr.readUInt16BE(2)
  if (family === AF_INET) return { realIp: sockaddr.subarray(4, 8).join('.'), port, source: 'AF_INET' }
  if (family !== AF_INET6) return { realIp: `family ${family}` }
  const address = sockaddr.subarray(8, 24)
  if (address.toString('hex').startsWith('00000000000000000000ffff')) {
    return { realIp: address.subarray(12).join('.'), port, source: 'mapped' }
  }
  const groups = Array.from({ length: 8 }, (_, i) => address.readUInt16BE(2 * i).toString(16)).join(':')
  return { realIp: new URL(`http://[${groups}]`).hostname.slice(1, -1), port, source: 'AF_INET6' }
}

/** What the stamping programs append to a SYN comes last. */
function decodeSyn (syn: Buffer): Answer {
  const option = syn.subarray(-8)
  if (option[0] !== 254 || option[1] !== 8) return { realIp: 'no TOA' }
  return { realIp: option.subarray(4).join('.'), port: option.readUInt16BE(2) }
}

function descriptor (socket: object): number {
  return (socket as { _handle: { fd: number } })._handle.fd
}

/** Answers with what the system call named in the path says about the connection; an errno takes the address's place. */
async function serve (host: string): Promise<{ port: number, last: { buffer: Buffer, optlen: number }, close (): Promise<void> }> {
  const calls = bindSystemCalls()
  const last = { buffer: Buffer.alloc(0), optlen: 0 }

  function call (fd: number, path: string): Answer {
    const [, name, optlen = '128'] = path.split('/')
    const buffer = Buffer.alloc(128, UNTOUCHED)
    const len: [number] = [Number(optlen)]
    const result = name === 'getpeername'
      ? calls.getpeername(fd, buffer, len)
      : name === 'saved-syn'
        ? calls.getsockopt(fd, IPPROTO_TCP, TCP_SAVED_SYN, buffer, len)
        : calls.getsockopt(fd, IPPROTO_IP, OPTNAME_CLIENT, buffer, len)
    Object.assign(last, { buffer, optlen: len[0] })
    if (result !== 0) return { realIp: getSystemErrorName(-calls.errno()) }
    return name === 'saved-syn' ? decodeSyn(buffer.subarray(0, len[0])) : decode(buffer)
  }

  const server = http.createServer((request, response) => {
    response.end(JSON.stringify(call(descriptor(request.socket), request.url!)))
  })
  server.keepAliveTimeout = 0 // a slow machine may take its time
  server.listen(0, host)
  await once(server, 'listening')
  calls.setsockopt(descriptor(server), IPPROTO_TCP, TCP_SAVE_SYN, Uint8Array.of(1, 0, 0, 0), 4)
  return {
    port: (server.address() as AddressInfo).port,
    last,
    async close () {
      server.close()
      server.closeAllConnections()
      await once(server, 'close')
    }
  }
}

inLab('the kernel lab', async (t, lab) => {
  const client = await lab.client()
  const oracle = client.oracle()

  await t.test('the addresses of a connection', t => addresses(t, lab, client, oracle))
  await t.test('the module alone decides what is read', t => formats(t, lab, client, oracle))
  await t.test('the segments that carry it', t => segments(t, client, oracle))
  await t.test('stopped, started, and only one way of asking', t => switches(t, lab, client, oracle))
  await t.test('faults of 1348', t => faults(t, lab, client, oracle))
  await t.test('the oracle speaks to every kind of server', t => protocols(t, lab, client, oracle))
  await t.test('the oracle keeps connections, asks again and closes them', t => keeping(t, lab, client, oracle))
  await t.test('the oracle notices what is wrong', t => noticing(t, lab, client, oracle))
  await t.test('stamps that the kernel cannot write are refused', t => refusals(t, client))
  await t.test('any program carries TOA', t => programs(t, lab, client))
  await t.test('two clients stamp each their own', t => twoClients(t, lab))
  await t.test('says what is missing', missing)
  await t.test('nothing is left behind', leftovers)
})

async function expectAnswers (t: Test, oracle: Oracle, options: OracleRun, what: string): Promise<void> {
  const tally = await oracle.run(options)
  const all = (options.connections ?? 1) * (options.requests ?? 1)
  t.match(tally, { answers: all, right: all, wrong: 0, errors: 0, samples: [], messages: [] }, what)
}

async function addresses (t: Test, lab: Lab, client: StampingClient, oracle: Oracle): Promise<void> {
  const listeners = [
    { listen: '127.0.0.1', from: '127.0.0.1', v4Name: 'AF_INET' },
    { listen: '::', from: '127.0.0.1', v4Name: 'mapped' },
    { listen: '::1', from: '::1', v4Name: 'mapped' }
  ]
  lab.module.start()
  for (const { listen, from, v4Name } of listeners) {
    const server = await serve(listen)
    const ask = { port: server.port, host: from, connections: 20 }

    client.set({ derive: 'v4' })
    await expectAnswers(t, oracle, { ...ask, path: '/1348', source: 'AF_INET' }, `IPv4 from 1348 on ${listen} from ${from}`)
    t.equal(server.last.optlen, 128, 'optlen is left alone')
    t.ok(server.last.buffer.subarray(16).every(byte => byte === UNTOUCHED), 'nothing is written behind 16 bytes')
    await expectAnswers(t, oracle, { ...ask, path: '/getpeername', source: v4Name }, `IPv4 from getpeername on ${listen} from ${from}`)

    client.set({ derive: 'v6' })
    await expectAnswers(t, oracle, { ...ask, path: '/1348', source: 'AF_INET6' }, `IPv6 from 1348 on ${listen} from ${from}`)
    t.ok(server.last.buffer.subarray(28).every(byte => byte === UNTOUCHED), 'nothing is written behind 28 bytes')
    if (listen !== '127.0.0.1') {
      await expectAnswers(t, oracle, { ...ask, path: '/getpeername', source: 'AF_INET6' }, `IPv6 from getpeername on ${listen} from ${from}`)
    } else {
      await expectAnswers(t, oracle, { ...ask, path: '/getpeername', expect: 'peer' }, 'getpeername of an AF_INET socket cannot say IPv6')
    }

    for (const address of ['198.51.100.23', '0.0.0.0', '2001:db8::23', 'fe80::1', '::ffff:192.0.2.1']) {
      client.set({ address, port: 443 })
      const expect = address.startsWith('::ffff:') ? { address: '192.0.2.1', port: 443 } : { address, port: 443 }
      await expectAnswers(t, oracle, { ...ask, path: '/1348', connections: 1, expect }, `${address}, port 443`)
    }

    client.set(null)
    await expectAnswers(t, oracle, { ...ask, path: '/1348', expect: { address: 'ESRCH' } }, 'no TOA is ESRCH')
    t.ok(server.last.buffer.every(byte => byte === UNTOUCHED), 'a failure writes nothing')
    await expectAnswers(t, oracle, { ...ask, path: '/getpeername', expect: 'peer' }, 'no TOA leaves getpeername as it is')

    await server.close()
  }
  lab.module.stop()
}

async function formats (t: Test, lab: Lab, client: StampingClient, oracle: Oracle): Promise<void> {
  const toa = (kind: number, length: number, port: number, ...address: number[]): number[] =>
    [kind, length, port >> 8, port & 255, ...address]
  const v6 = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x23]
  const ignored: Array<[string, Stamp]> = [
    ['on the SYN only', { on: ['syn'] }],
    ['on later segments only', { on: ['data'] }],
    ['254 with 7 bytes', { length: 7 }],
    ['254 with 10 bytes', { length: 10 }],
    ['254 with 20 bytes', { derive: 'v6', kind: 254, length: 20 }],
    ['253 with 8 bytes', { kind: 253, length: 8 }],
    ['253 with 18 bytes', { derive: 'v6', length: 18 }],
    ['another kind', { kind: 200 }],
    ['no room for it', { length: 40 }]
  ]
  const read: Array<[string, Stamp, { address: string, port: number }?]> = [
    ['on the ACK only', { on: ['ack'] }],
    ['IPv6 on the ACK only', { derive: 'v6', on: ['ack'] }],
    ['on everything', { on: ['syn', 'ack', 'data'] }],
    ['the first of two', { bytes: Uint8Array.from([...toa(254, 8, 1, 192, 0, 2, 1), ...toa(254, 8, 2, 192, 0, 2, 2)]) }, { address: '192.0.2.1', port: 1 }],
    ['the first of two families', { on: ['ack'], bytes: Uint8Array.from([...toa(253, 20, 6, ...v6), ...toa(254, 8, 4, 192, 0, 2, 4)]) }, { address: '2001:db8::23', port: 6 }],
    ['the first well-formed one', { bytes: Uint8Array.from([...toa(254, 6, 1, 9, 9), ...toa(254, 8, 2, 192, 0, 2, 2)]) }, { address: '192.0.2.2', port: 2 }]
  ]
  const server = await serve('127.0.0.1')
  lab.module.start()
  for (const [what, stamp] of ignored) {
    client.set(stamp)
    await expectAnswers(t, oracle, { port: server.port, path: '/1348', requests: 2, expect: { address: 'ESRCH' } }, `ignored: ${what}`)
  }
  for (const [what, stamp, expect = 'stamped' as const] of read) {
    client.set(stamp)
    await expectAnswers(t, oracle, { port: server.port, path: '/1348', requests: 2, expect }, `read: ${what}`)
  }
  lab.module.stop()
  await server.close()
}

// The ACK is shown by what the module reads; the SYN by what the kernel saves of it.
async function segments (t: Test, client: StampingClient, oracle: Oracle): Promise<void> {
  const server = await serve('127.0.0.1')
  const ask = { port: server.port, path: '/saved-syn' }
  for (const stamp of [{}, { on: ['syn'] }] as const) {
    client.set(stamp)
    await expectAnswers(t, oracle, ask, 'on the SYN')
  }
  for (const stamp of [{ on: ['ack', 'data'] }, null] as const) {
    client.set(stamp)
    await expectAnswers(t, oracle, { ...ask, expect: { address: 'no TOA' } }, 'not on the SYN')
  }
  await server.close()
}

async function switches (t: Test, lab: Lab, client: StampingClient, oracle: Oracle): Promise<void> {
  const server = await serve('127.0.0.1')
  const { port } = server
  const absent = { address: 'ENOPROTOOPT' }
  client.set({})

  await expectAnswers(t, oracle, { port, path: '/1348', expect: absent, then: 'keep' }, 'never started')
  lab.module.start()
  t.match(await oracle.again({ path: '/1348', expect: { address: 'ESRCH' } }), { right: 1 }, 'has not seen connections made before the start')
  await oracle.drop()

  await expectAnswers(t, oracle, { port, path: '/1348', then: 'keep' }, 'started')
  t.match(await oracle.again({ path: '/getpeername' }), { right: 1 })
  lab.module.stop()
  t.match(await oracle.again({ path: '/1348', expect: absent }), { right: 1 }, 'stopped: the kernel\'s own errno')
  t.match(await oracle.again({ path: '/getpeername', expect: 'peer' }), { right: 1 }, 'stopped: the peer again')
  lab.module.start()
  t.match(await oracle.again({ path: '/1348', expect: { address: 'ESRCH' } }), { right: 1 }, 'forgotten by the next start')
  t.match(await oracle.again({ path: '/getpeername', expect: 'peer' }), { right: 1 })
  await oracle.drop({ by: 'reset' })

  lab.module.start({ getpeername: false })
  await expectAnswers(t, oracle, { port, path: '/1348', then: 'keep' }, 'getsockopt only')
  t.match(await oracle.again({ path: '/getpeername', expect: 'peer', then: 'end' }), { right: 1 })
  lab.module.start({ getsockopt: false })
  await expectAnswers(t, oracle, { port, path: '/getpeername', then: 'keep' }, 'getpeername only')
  t.match(await oracle.again({ path: '/1348', expect: absent, then: 'end' }), { right: 1 })
  lab.module.stop()
  await server.close()
}

async function faults (t: Test, lab: Lab, client: StampingClient, oracle: Oracle): Promise<void> {
  const server = await serve('127.0.0.1')
  const ask = { port: server.port, path: '/1348' }
  client.set({ derive: 'v6' })
  lab.module.start()

  await expectAnswers(t, oracle, { ...ask, path: '/1348/27', expect: { address: 'EINVAL' } }, 'too short for IPv6')
  await expectAnswers(t, oracle, { ...ask, path: '/1348/28' }, 'just long enough for IPv6')
  for (const errno of ['EINVAL', 'EPERM', 'EFAULT', 'ENOTCONN'] as const) {
    lab.module.fault({ errno })
    await expectAnswers(t, oracle, { ...ask, expect: { address: errno } }, errno)
  }
  for (const family of [0, 77]) {
    lab.module.fault({ family })
    await expectAnswers(t, oracle, { ...ask, expect: { address: `family ${family}` } }, `family ${family}`)
  }
  for (const bytesWritten of [0, 1, 10]) {
    lab.module.fault({ bytesWritten })
    await oracle.run({ ...ask, expect: 'peer' })
    const { buffer } = server.last
    t.notOk(buffer.subarray(0, bytesWritten).includes(UNTOUCHED), `${bytesWritten} bytes are written`)
    t.ok(buffer.subarray(bytesWritten).every(byte => byte === UNTOUCHED), `${bytesWritten} bytes are written, no more`)
  }
  lab.module.fault()
  await expectAnswers(t, oracle, ask, 'no fault')
  client.set({ derive: 'v4' })
  await expectAnswers(t, oracle, { ...ask, path: '/1348/15', expect: { address: 'EINVAL' } }, 'too short for IPv4')
  await expectAnswers(t, oracle, { ...ask, path: '/1348/16' }, 'just long enough for IPv4')
  lab.module.stop()
  await server.close()
}

// getpeername, and with it Node's remoteAddress, needs no plugin to reach every kind.
async function protocols (t: Test, lab: Lab, client: StampingClient, oracle: Oracle): Promise<void> {
  lab.module.start()
  client.set({})
  for (const kind of kinds) {
    const app = kind.create()
    app.get('/whoami', async ({ raw: { socket } }) => ({ realIp: socket.remoteAddress, port: socket.remotePort, source: 'peer' }))
    const port = await listen(app)
    const protocol = kind.name === 'h2-http1' ? 'https' : kind.name
    await expectAnswers(t, oracle, { port, protocol, connections: 100, requests: 3, source: 'peer' }, kind.name)

    const secure = protocol === 'https' || protocol === 'h2'
    for (const abandon of secure ? ['connect', 'tls', 'request'] as const : ['connect', 'request'] as const) {
      const tally = await oracle.run({ port, protocol, connections: 50, abandon })
      t.match(tally, { connections: 50, abandoned: 50, answers: 0, errors: 0, messages: [] }, `${kind.name} reset at ${abandon}`)
    }
    await expectAnswers(t, oracle, { port, protocol, then: 'reset' }, `${kind.name} is well afterwards`)
    await app.close()
  }
  lab.module.stop()
}

async function keeping (t: Test, lab: Lab, client: StampingClient, oracle: Oracle): Promise<void> {
  const server = await serve('127.0.0.1')
  lab.module.start()
  client.set({})
  await expectAnswers(t, oracle, { port: server.port, path: '/1348', connections: 1000, then: 'keep' }, 'a thousand at once')
  client.set(null) // those kept go on claiming what they did
  t.match(await oracle.again({ path: '/1348', requests: 2, count: 100 }), { connections: 100, answers: 200, right: 200 }, 'the oldest hundred, which move to the end')
  t.equal(await oracle.drop({ count: 500 }), 500)
  t.match(await oracle.again({ path: '/1348' }), { connections: 500, right: 500, wrong: 0, errors: 0 })
  t.equal(await oracle.drop({ by: 'reset' }), 500)
  t.match(await oracle.again({ path: '/1348' }), { connections: 0, answers: 0 })

  client.set({})
  const load = oracle.run({ port: server.port, path: '/getpeername', connections: 500, requests: 4, expect: 'stamped-or-peer' })
  let loaded = false
  const over = load.finally(() => { loaded = true })
  while (!loaded) {
    lab.module.stop()
    await setImmediate()
    lab.module.start()
    await setImmediate()
  }
  t.match(await over, { answers: 2000, right: 2000, wrong: 0, errors: 0, sources: { AF_INET: 2000 } }, 'while the module comes and goes')
  lab.module.stop()
  await server.close()
}

async function noticing (t: Test, lab: Lab, client: StampingClient, oracle: Oracle): Promise<void> {
  const server = await serve('127.0.0.1')
  const { port } = server
  lab.module.start()
  client.set({ address: '192.0.2.1' })
  const wrong = await oracle.run({ port, path: '/1348', connections: 7, expect: { address: '192.0.2.2' } })
  t.match(wrong, { answers: 7, right: 0, wrong: 7, errors: 0 }, 'an address')
  t.equal(wrong.samples.length, 5, 'shows the first few')
  t.match(wrong.samples[0], { localPort: Number, expected: [{ address: '192.0.2.2' }], got: { realIp: '192.0.2.1' } })
  t.match(await oracle.run({ port, path: '/1348', source: 'getpeername' }), { wrong: 1 }, 'a source')
  t.match(await oracle.run({ port, path: '/1348', expect: { address: '192.0.2.1', port: 1 } }), { wrong: 1 }, 'a port')
  client.set(null)
  t.match(await oracle.run({ port, path: '/1348' }), { answers: 0, errors: 1, messages: [/claims no one address/] }, 'nothing to expect')
  await server.close()

  t.match(await oracle.run({ port, connections: 3, expect: 'peer' }), { answers: 0, errors: 3, messages: [/ECONNREFUSED/] }, 'nobody there')
  const silent = http.createServer(() => {}).listen(0, '127.0.0.1')
  await once(silent, 'listening')
  const silentPort = (silent.address() as AddressInfo).port
  t.match(await oracle.run({ port: silentPort, connections: 3, concurrency: 2, timeout: 100, expect: 'peer' }), { errors: 3, messages: [/timed out/] }, 'no answer')
  silent.close()
  silent.closeAllConnections()
  lab.module.stop()
}

async function refusals (t: Test, client: StampingClient): Promise<void> {
  const bytes = (...numbers: number[]): Stamp => ({ bytes: Uint8Array.from(numbers) })
  const impossible: Array<[string, Stamp]> = [
    ['NOP', bytes(1, 254, 8, 0, 0, 0, 0, 0, 0)],
    ['EOL', bytes(0)],
    ['length 0', bytes(254, 0)],
    ['length 1', { length: 1 }],
    ['length 3', { length: 3 }],
    ['truncated', bytes(254, 8, 0, 0)],
    ['too long', { length: 41 }],
    ['the same twice', bytes(254, 4, 1, 1, 254, 4, 1, 1)],
    ['five', bytes(30, 2, 31, 2, 32, 2, 33, 2, 35, 2)],
    ['not an address', { address: 'localhost' }]
  ]
  for (const [what, stamp] of impossible) t.throws(() => client.set(stamp), TypeError, what)
}

async function programs (t: Test, lab: Lab, client: StampingClient): Promise<void> {
  const server = await serve('127.0.0.1')
  const url = `http://127.0.0.1:${server.port}/1348`
  lab.module.start()
  client.set({ address: '198.51.100.23', port: 4321 })
  const expected = { realIp: '198.51.100.23', port: 4321, source: 'AF_INET' }
  const commands = [
    [process.execPath, '-e', `fetch('${url}').then(r => r.text()).then(console.log)`],
    ...existsSync('/usr/bin/curl') ? [['/usr/bin/curl', '-s', url]] : []
  ]
  for (const [command = '', ...args] of commands) {
    const { stdout, stderr, code } = await client.run(command, args)
    t.equal(code, 0, stderr)
    t.strictSame(JSON.parse(stdout), expected, command)
  }
  const own = await fetch(url)
  t.strictSame(await own.json(), { realIp: 'ESRCH' }, 'this process itself is not stamped')
  t.match(await client.run('/bin/sh', ['-c', 'echo out; echo err >&2; exit 3']), { stdout: 'out\n', stderr: 'err\n', code: 3 })
  lab.module.stop()
  await server.close()
}

async function twoClients (t: Test, lab: Lab): Promise<void> {
  const server = await serve('127.0.0.1')
  lab.module.start()
  const clients = await Promise.all(['192.0.2.1', '192.0.2.2'].map(address => lab.client({ address })))
  await Promise.all(clients.map(client =>
    expectAnswers(t, client.oracle(), { port: server.port, path: '/1348', connections: 200 }, client.cgroup)))
  t.not(derivedAddress(40000), derivedAddress(40001))
  lab.module.stop()
  await server.close()
}

async function missing (t: Test): Promise<void> {
  const script = `console.log(require(${JSON.stringify(join(__dirname, 'lab.js'))}).labUnavailable())`
  const { stdout } = spawnSync(process.execPath, ['-e', script], { env: { PATH: '/nowhere' }, encoding: 'utf8' })
  t.match(stdout, /apt-get install clang libbpf-dev/)
}

async function leftovers (t: Test): Promise<void> {
  const bpfDescriptors = (): number => readdirSync('/proc/self/fd').filter(fd => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith('anon_inode:bpf')
    } catch {
      return false // closed meanwhile
    }
  }).length
  const before = bpfDescriptors()
  const lab = await openLab()
  const cgroup = dirname(lab.serverCgroup)
  const mount = dirname(cgroup)
  lab.enterServer()
  lab.module.start()
  const client = await lab.client()
  const child = client.spawn('/bin/sh', ['-c', 'read -r _'], { stdio: ['pipe', 'ignore', 'ignore'] })
  const childExit = once(child, 'exit')
  const oracle = client.oracle()
  t.ok(bpfDescriptors() > before)
  await Promise.all([lab.close(), lab.close()])
  t.strictSame(await childExit, [null, 'SIGKILL'], 'its children are ended')
  await oracle.close()
  t.notOk(existsSync(cgroup), 'its cgroups are removed')
  t.equal(bpfDescriptors(), before, 'its programs, maps and attachments are closed, and none was pinned')

  const deaths = {
    'an exception': 'throw new Error("crash")',
    'process.exit': 'process.exit(1)',
    SIGINT: 'process.kill(process.pid, "SIGINT")',
    SIGKILL: 'process.kill(process.pid, "SIGKILL")'
  }
  for (const [death, code] of Object.entries(deaths)) {
    const script = `require(${JSON.stringify(join(__dirname, 'lab.js'))}).openLab().then(async lab => {
      lab.enterServer()
      lab.module.start()
      const client = await lab.client()
      const oracle = client.oracle()
      client.spawn('/bin/sh', ['-c', 'echo ready; read -r _'], { stdio: ['pipe', 'pipe', 'ignore'] }).stdout.once('data', () => {
        console.log(lab.serverCgroup)
        setImmediate(() => { ${code} })
      })
    })`
    const crashing = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'pipe'] })
    let stdout = ''
    crashing.stdout.setEncoding('utf8').on('data', (text: string) => { stdout += text })
    crashing.stderr.resume()
    await once(crashing, 'close')
    const serverCgroup = stdout.trim()
    t.match(basename(dirname(serverCgroup)), `.${crashing.pid}.`, `${death}: the lab was open`)
    t.notOk(existsSync(dirname(serverCgroup)), `${death}: nothing is left`)
  }

  const ended = spawn('/bin/true')
  await once(ended, 'exit')
  const ofPid = (pid: number | undefined): string => join(mount, basename(cgroup).replace(/\d+\.\d+$/, `${pid}.999`))
  const [ofTheDead, ofTheLiving] = [ofPid(ended.pid), ofPid(process.ppid)]
  for (const leftover of [ofTheDead, ofTheLiving]) {
    mkdirSync(leftover)
    mkdirSync(join(leftover, 'server'))
  }
  await (await openLab()).close()
  t.notOk(existsSync(ofTheDead), 'the next lab removes what a dead process left')
  t.ok(existsSync(ofTheLiving), 'and nothing of the living')
  rmdirSync(join(ofTheLiving, 'server'))
  rmdirSync(ofTheLiving)
}
