import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import { createServer, type AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { readArguments, type WatchArguments } from '../../lib/cli/arguments'
import type { Seen } from '../../lib/cli/sighting'
import { watch } from '../../lib/cli/watch'
import { explainListen } from '../../lib/cli/explain-listen'
import { NLM_F_REQUEST } from '../../lib/kernel/constants'
import { type Diag, type Libc, loadLibc, type openCapture as openPacketSocket } from '../../lib/kernel/libc'
import { inLab } from '../lab/in-lab'
import { derivedAddress, type StampingClient } from '../lab/lab'
import { open, run, startWatch } from './cli'

const nothing = process.platform !== 'linux' && 'needs Linux'

t.test('plain connections, one line of JSON for each, until --count', { skip: nothing }, async (t) => {
  const { port, seen, notes, ended } = await startWatch(t, ['--json', '--count', '2'])
  t.match(notes[0], /^fastify-real-ip: sources vtoa.*; .*not saved-syn \(it needs 'toa' and a list of 'trustedPeers'\)$/)

  const request = get({ port, host: '127.0.0.1', agent: false, headers: { connection: 'keep-alive' } })
  const [response] = await once(request, 'response') as [IncomingMessage]
  t.equal(response.statusCode, 200)
  t.match(response.headers, { connection: 'close', 'content-type': 'text/plain' })
  t.equal(await text(response), 'fastify-real-ip watch\n', 'nothing of what is seen goes to who asks')
  const first = await seen()
  const peer = { address: '127.0.0.1', port: Number(first.transportPeer?.port) }
  t.match(first, {
    connection: 1,
    time: /^\d{4}-\d\d-\d\dT[\d:.]+Z$/,
    transportPeer: { ...peer, by: 'saved-syn' },
    syn: { payload: false },
    decision: { ...peer, family: 'IPv4', source: 'getpeername', trust: 'unchecked', reset: false }
  })
  t.same(first.syn?.options.filter(({ name }) => name !== 'nop').map(({ name }) => name), ['mss', 'sackOK', 'ts', 'wscale'])
  t.same(first.sources, [
    { source: 'vtoa', reason: 'ENOPROTOOPT' },
    { source: 'nat64', reason: 'ENOPROTOOPT' },
    { source: 'getpeername', ...peer },
    { source: 'saved-syn', reason: 'not-asked' }
  ])
  t.equal(first.notes.length, 1)
  t.match(first.notes[0], first.ack === null ? /^TOA after the SYN/ : /^Neither the SYN nor the ACK carries TOA\.$/)

  // One that never says a word does not keep it from ending.
  const silent = await open(t, port)
  t.match(await seen(), { connection: 2, transportPeer: { port: silent.localPort } })
  t.equal(await ended, 0)
})

t.test('as text, with trusted peers', { skip: nothing }, async (t) => {
  const { port, text, notes, ended } = await startWatch(t, ['--host', '127.0.0.1', '--trusted-peers', '10.0.0.0/8', '--count', '1'])
  t.equal(notes[1], `Listening on 127.0.0.1:${port}; press Ctrl-C to exit.`)
  const { localPort } = await open(t, port)
  const lines = (await text()).split('\n')
  t.equal(await ended, 0)
  t.match(lines[0], /^Connection 1 at \d{4}-/)
  t.equal(lines[1], `  transport peer   127.0.0.1:${localPort} (from the saved SYN)`)
  t.match(lines[2], /^ {2}SYN {14}mss \d+, sackOK, ts \d+\/0, nop, wscale \d+$/)
  t.ok(lines.includes(`  getpeername      127.0.0.1:${localPort}, the transport peer: no claim`))
  t.ok(lines.includes(`  the plugin says  127.0.0.1:${localPort} by transport-peer, untrusted`))
  t.notMatch(lines.join(), '\x1b', 'no colours but on a terminal')
})

const noSetpriv = spawnSync('setpriv', ['--bounding-set', '-net_raw', 'true']).status !== 0 && process.getuid?.() === 0 && 'needs setpriv(1)'

t.test('without the right to a packet socket', { skip: nothing || noSetpriv }, async (t) => {
  const before = process.getuid?.() === 0 ? ['setpriv', '--bounding-set', '-net_raw'] : []
  const { port, seen } = await startWatch(t, ['--json'], { before })
  await open(t, port)
  const { ack, notes } = await seen()
  t.equal(ack, null)
  t.match(notes, [/^TOA after the SYN, on the ACK or on data, is not visible here: .* needs root \(EPERM\)\.$/])
})

t.test('what tells a client in the first bytes is noted, with the connection', { skip: nothing }, async (t) => {
  const { port, seen, noted } = await startWatch(t)
  const first = await open(t, port)
  await seen()
  const second = await open(t, port)
  await seen()
  second.write('GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n')
  t.match(await noted('Connection'), /^Connection 2: its request has x-forwarded-for: 203\.0\.113\.7\. /)
  first.write('PROXY TCP4 203.0.113.7 10.0.0.1 51234 443\r\n')
  t.match(await noted('PROXY'), /^Connection 1: it begins with a header of the PROXY protocol, version 1: PROXY TCP4 203/)
})

t.test('Ctrl-C ends it cleanly, whoever is still connected', { skip: nothing }, async (t) => {
  const { port, child, seen, ended } = await startWatch(t)
  await open(t, port)
  await seen()
  child.kill('SIGINT')
  t.equal(await ended, 0)
})

t.test('whoever reads the output may have seen enough', { skip: nothing }, async (t) => {
  const { port, child, ended } = await startWatch(t)
  child.stdout?.destroy()
  await open(t, port)
  t.equal(await ended, 0)
})

t.test('where it cannot listen: a sentence and code 1', { skip: nothing }, async (t) => {
  const server = createServer().listen(0, '127.0.0.1')
  t.teardown(() => server.close())
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const cases: Array<[args: string[], flags: string[], says: RegExp]> = [
    [[String(port), '--host', '127.0.0.1'], [], new RegExp(`port ${port} is in use: choose another`)],
    [['0', '--host', '192.0.2.1'], [], /192\.0\.2\.1 is not an address of this machine/],
    [['0'], ['--no-addons'], /watch cannot examine connections here: koffi cannot be loaded \(.*addon/]
  ]
  for (const [args, flags, says] of cases) {
    const { code, stdout, stderr } = await run(['watch', ...args], { flags })
    t.same([code, stdout], [1, ''])
    t.match(stderr, says)
    t.match(stderr, /^fastify-real-ip: [^\n]+\.\n$/)
  }
})

t.test('each way in which listening fails', async (t) => {
  const explain = (code: string) => explainListen(Object.assign(new Error(`listen ${code}`), { code }), 80, 'example.org')
  t.match(explain('EADDRINUSE'), /^port 80 is in use/)
  t.match(explain('EACCES'), /^this user may not listen on port 80: choose a port of at least 1024/)
  t.match(explain('EADDRNOTAVAIL'), /^example\.org is not an address of this machine\.$/)
  t.equal(explain('ENOTFOUND'), 'cannot listen on port 80: listen ENOTFOUND.')
})

/** Watches in this process, on a kernel that is not quite like this one. */
async function watchOn (t: Test, args: string[], changes: Partial<Libc>, openCapture: typeof openPacketSocket = () => 1) {
  const notes: string[] = []
  const stop = new AbortController()
  const lines: Seen[] = []
  let next = () => {}
  const given = readArguments(['watch', '0', '--json', ...args]) as WatchArguments
  let ended: Promise<void> | undefined
  const listening = new Promise<number>((resolve, reject) => {
    ended = watch(given, {
      libc: { ...loadLibc() as Libc, ...changes },
      openCapture,
      say: (line) => {
        lines.push(JSON.parse(line))
        next()
      },
      note: (note) => {
        notes.push(note)
        const port = /^Listening on .*:(\d+); /.exec(note)?.[1]
        if (port !== undefined) resolve(Number(port))
      },
      terminal: {},
      signal: stop.signal
    })
    ended.catch(reject)
  })
  t.teardown(() => { stop.abort() })
  const port = await listening
  return {
    port,
    notes,
    async end () {
      stop.abort()
      await ended
    },
    async seen () {
      if (lines.length === 0) await new Promise<void>((resolve) => { next = resolve })
      return lines.shift() as Seen
    }
  }
}

t.test('a kernel that keeps no SYN, and one that does not tell the sender either', { skip: nothing }, async (t) => {
  for (const args of [[], ['--trusted-peers', '127.0.0.1']]) {
    const cookies = await watchOn(t, args, { readSavedSyn: () => 0 })
    const socket = await open(t, cookies.port)
    const seen = await cookies.seen()
    t.match(seen, { transportPeer: { address: '127.0.0.1', port: socket.localPort, by: 'sock_diag' }, syn: null, ack: null })
    t.match(seen.notes, [/^The kernel did not save the SYN/, /is not visible here: .* \(EPERM\)\.$/])
    if (args.length > 0) {
      t.match(seen.decision, { trust: 'trusted', source: 'transport-peer', reason: 'no-toa' })
      t.match(cookies.notes.at(-1), /no SYN was saved/, 'the plugin warns')
    }

    const blind = await watchOn(t, args, { readSavedSyn: () => 0, openDiag: () => 1 })
    await open(t, blind.port)
    const { transportPeer, decision } = await blind.seen()
    t.equal(transportPeer, null)
    t.equal(decision.trust, args.length > 0 ? 'unverified' : 'unchecked')
  }
})

t.test('the last of --count is printed though its sender is found later', { skip: nothing }, async (t) => {
  const { openDiag } = loadLibc() as Libc
  // Exact lookups have another cookie, and the first dump takes so long that the next one has to wait.
  let dumps = 0
  const slow = (): Diag => {
    const diag = openDiag() as Diag
    const { buffer } = diag
    return {
      ...diag,
      send (length) {
        if (new DataView(buffer.buffer, buffer.byteOffset).getUint16(6, true) === NLM_F_REQUEST) buffer[64]! ^= 255
        else if (dumps++ === 0) for (const start = performance.now(); performance.now() < start + 20;);
        return diag.send(length)
      }
    }
  }
  const cookies = await watchOn(t, ['--trusted-peers', '127.0.0.1', '--count', '2'], { readSavedSyn: () => 0, openDiag: slow })
  const opened = (await Promise.all([open(t, cookies.port), open(t, cookies.port)])).map(({ localPort }) => localPort)
  const ports = [(await cookies.seen()).transportPeer?.port, (await cookies.seen()).transportPeer?.port]
  t.same(ports.sort(), opened.sort())
  t.equal(dumps, 2)
})

t.test('when it ends it leaves nothing open', { skip: nothing }, async (t) => {
  let closed = false
  const { end } = await watchOn(t, [], {}, () => ({ packet: new Uint8Array(0), receive: () => 0, close: () => { closed = true } }))
  t.notOk(closed)
  await end()
  t.ok(closed)
})

t.test('a kernel that refuses TCP_SAVE_SYN', { skip: nothing }, async (t) => {
  await t.rejects(watchOn(t, [], { setsockopt: () => 92 }), {
    message: /^cannot listen on port 0: the kernel refuses TCP_SAVE_SYN \(ENOPROTOOPT\), without which no SYN is visible\.$/
  })
})

/** Connects from the client's cgroup, with its stamp, and waits until the server ends it. Gives its port. */
async function connectFrom (client: StampingClient, port: number): Promise<number> {
  const code = `const socket = require('node:net').connect(${port}, '127.0.0.1').on('close', () => {}).on('error', () => {})
    socket.on('connect', () => { console.log(socket.localPort); socket.end('GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n') }).resume()`
  const { stdout } = await client.run(process.execPath, ['-e', code])
  return Number(stdout)
}

const noUser = process.getuid?.() === 0 && spawnSync('setpriv', ['--reuid', '65534', 'true']).status !== 0 && 'needs setpriv(1)'

inLab('an ordinary user beside a module that rewrites getpeername alone', async (t, lab) => {
  if (noUser !== false) throw new Error(noUser)
  const client = await lab.client()
  const before = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups', '--inh-caps=-all']
  lab.module.start({ as: 'ucloud' })
  const watch = await startWatch(t, ['--json', '--host', '127.0.0.1'], { before })
  const port = await connectFrom(client, watch.port)
  const told = await watch.seen()
  t.match(told, {
    transportPeer: { address: '127.0.0.1', port, by: 'saved-syn' },
    ack: null,
    decision: { address: derivedAddress(port), source: 'getpeername', trust: 'unchecked' }
  })
  client.set(null)
  await connectFrom(client, watch.port)
  const silent = await watch.seen()
  t.match(silent.decision, { address: '127.0.0.1' })
  t.same(silent.notes, [
    'TOA after the SYN, on the ACK or on data, is not visible here: the kernel module has nothing for this connection, and capturing it needs root (EPERM).'
  ])
})

inLab('beside a module that does not read the format, or not for this listener', async (t, lab) => {
  const client = await lab.client()
  lab.module.start()
  const vtoa = await startWatch(t, ['--json', '--host', '127.0.0.1'])
  client.set({ address: '2001:db8::7', port: 7, kind: 254, length: 20 })
  await connectFrom(client, vtoa.port)
  const seen = await vtoa.seen()
  t.match(seen.ack?.find(({ name }) => name === 'toa'), { kind: 254, length: 20, address: '2001:db8::7' })
  t.match(seen.notes[0], /^TOA 254\/20 was sent, but getsockopt 1348 returned nothing\. vtoa or attach answers it/)
})

inLab('beside the stand-in for vtoa', async (t, lab) => {
  const client = await lab.client()
  lab.module.start()
  const unchecked = await startWatch(t)
  const port = await connectFrom(client, unchecked.port)
  const claim = { address: derivedAddress(port), port }
  const toa = { kind: 254, length: 8, name: 'toa', ...claim }
  const seen = await unchecked.seen()
  t.match(seen, {
    transportPeer: { address: '127.0.0.1', port },
    decision: { ...claim, source: 'vtoa', trust: 'unchecked' },
    ack: [{ name: 'nop' }, { name: 'nop' }, { name: 'ts' }, toa]
  })
  t.match(seen.syn?.options.find(({ name }) => name === 'toa'), { ...toa, format: '254/8/IPv4/last' })
  t.match(seen.sources.slice(0, 3), [{ source: 'vtoa', ...claim }, { source: 'nat64', reason: 'ENOPROTOOPT' }, { source: 'getpeername', ...claim }])
  t.match(seen.notes, [/--trusted-peers 127\.0\.0\.1 --toa 254\/8\/IPv4\/last$/])

  t.notMatch(unchecked.notes.join(), 'trustProxy', 'there is no Fastify here')

  const checked = await startWatch(t, ['--json', '--trusted-peers', '127.0.0.1'])
  const second = await connectFrom(client, checked.port)
  t.match((await checked.seen()).decision, { address: derivedAddress(second), source: 'vtoa', trust: 'trusted', reset: false })

  client.set({ address: '127.0.0.53', port: 53 })
  await connectFrom(client, checked.port)
  t.match((await checked.seen()).decision, { address: '127.0.0.53' }, 'a loopback address from a loopback peer')
  client.set({ address: '224.0.0.1', port: 53 })
  await connectFrom(client, checked.port)
  const invalid = await checked.seen()
  t.match(invalid.decision, { address: '127.0.0.1', trust: 'trusted', reason: 'implausible', reset: true })
  t.match(invalid.sources[0], { source: 'vtoa', address: '224.0.0.1', port: 53 }, 'still told what it claimed')
})
