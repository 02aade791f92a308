import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, symlinkSync } from 'node:fs'
import { get, type IncomingMessage } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { json } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import type { RealAddress } from 'fastify-real-ip'
import { labUnavailable } from './lab/lab'
import { hasIPv6, namespaceUnavailable } from './player/namespace'

const demo = join(__dirname, '../examples/demo.js')

interface Printed { code: number | null, stdout: string, stderr: string }

function spawnDemo (args: string[], path: string | undefined) {
  const env = path === undefined ? process.env : { ...process.env, PATH: path }
  const child = spawn(process.execPath, [demo, ...args], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const printed: Printed = { code: null, stdout: '', stderr: '' }
  child.stdout.setEncoding('utf8').on('data', (text) => { printed.stdout += text })
  child.stderr.setEncoding('utf8').on('data', (text) => { printed.stderr += text })
  return { child, printed }
}

async function run (args: string[], path?: string): Promise<Printed> {
  const { child, printed } = spawnDemo(args, path)
  const [code] = await once(child, 'close') as [number]
  return { ...printed, code }
}

/** The words of the table's rows: who sent, who that is, what TOA says, and what the plugin says of it. */
const rowsOf = ({ stdout }: Printed) => stdout.replaceAll('\n      reason: ', '  ').split('\n')
  .filter((line) => / (trusted|untrusted|unchecked|reset)\b/.test(line) && !line.includes('{') && !line.includes('-->'))
  .map((line) => line.trim().split(/ {2,}/))

const accessLogOf = ({ stdout }: Printed) => JSON.parse(/^ +(\{"level"[^]*?\})$/m.exec(stdout)?.[1] ?? '{}')

/** What is printed, as if lines had no end. */
const unwrapped = ({ stdout }: Printed) => stdout.replace(/\s+/g, ' ')

function fits (t: Test, { stdout }: Printed): void {
  t.same(stdout.split('\n').filter((line) => line.length > 80), [], 'nothing is wider than 80 columns')
}

/** As in the lab: where it cannot run it is skipped, unless it is required. */
function testWhere (missing: string | undefined, name: string, tests: (t: Test) => Promise<void>): void {
  if (missing !== undefined && process.env.FASTIFY_REAL_IP_LAB !== 'required') t.test(name, { skip: missing }, () => {})
  else t.test(name, tests)
}

t.setTimeout(120_000)

testWhere(namespaceUnavailable(), 'TOA on a real handshake, read from the SYN', async (t) => {
  // Where the kernel has no IPv6, the balancer carries an IPv6 client's address on IPv4.
  const balancer6 = hasIPv6() ? 'fd00::2' : '10.0.0.2'
  const printed = await run(['--once'])
  t.same([printed.code, printed.stderr], [0, ''])
  t.same(rowsOf(printed), [
    ['10.0.0.2', 'balancer', '203.0.113.7', '203.0.113.7', 'saved-syn', 'trusted'],
    [balancer6, 'balancer', '2001:db8::7', '2001:db8::7', 'saved-syn', 'trusted'],
    ['10.0.0.2', 'balancer', 'nothing', '10.0.0.2', 'transport-peer', 'trusted', 'no-toa'],
    ['192.0.2.66', 'stranger', '203.0.113.7', '192.0.2.66', 'transport-peer', 'untrusted', 'untrusted-peer']
  ])
  t.match(printed.stdout, /203\.0\.113\.7 --> 10\.0\.0\.2 +--> saves the SYN +--> .* --> request\.realIp\n/, 'the drawing')
  t.match(unwrapped(printed), "app.register(realIp, { sources: ['saved-syn'], toa: 'alibaba', trustedPeers: ['10.0.0.2', 'fd00::2'] })")
  fits(t, printed)
  t.match(accessLogOf(printed), {
    msg: 'incoming request',
    req: { method: 'GET', url: '/', realIp: '203.0.113.7', realPort: 51234, source: 'saved-syn', trust: 'trusted' }
  })
  t.match(unwrapped(printed), /request\.ip is (::ffff:)?10\.0\.0\.2 for the first/)
  t.notMatch(printed.stdout, '\x1b', 'no colours but on a terminal')

  const clients = [['198.51.100.23', '10.0.0.2'], ['2001:db8::23', balancer6]] as const
  for (const [client, balancer] of clients) {
    const printed = await run(['--client', client, '--once'])
    t.equal(printed.code, 0)
    t.same(rowsOf(printed)[0], [balancer, 'balancer', client, client, 'saved-syn', 'trusted'])
    t.equal(accessLogOf(printed).req.realIp, client)
    t.notMatch(printed.stdout, '203.0.113.7')
  }

  const long = await run(['--client', '2001:db8:1234:5678:9abc:def0:1234:5678', '--once'])
  t.match(long.stdout, /\n {2}realIp +2001:db8:1234:5678:9abc:def0:1234:5678\n {2}source +saved-syn\n {2}trust +trusted\n/)
  t.match(accessLogOf(long), { req: { realIp: '2001:db8:1234:5678:9abc:def0:1234:5678' } })
  fits(t, long)

  const reset = await run(['--client=0.0.0.0', '--once'])
  t.equal(reset.code, 0)
  t.same(rowsOf(reset)[0], ['-', 'balancer', '0.0.0.0', '-', '-', '-', 'no client can have it: reset'])
})

testWhere(labUnavailable(), 'without namespaces, on the kernel lab', async (t) => {
  const printed = await run(['--once', '--client', '198.51.100.23'], pathWithout(t, 'unshare', ['clang', 'grep', 'sleep', 'rmdir']))
  t.same([printed.code, printed.stderr], [0, ''])
  t.same(rowsOf(printed), [
    ['127.0.0.1', 'balancer', '198.51.100.23', '198.51.100.23', 'vtoa', 'trusted'],
    ['127.0.0.1', 'balancer', 'nothing', '127.0.0.1', 'transport-peer', 'trusted', 'no-toa'],
    ['127.0.0.66', 'stranger', '198.51.100.23', '127.0.0.66', 'transport-peer', 'untrusted', 'untrusted-peer']
  ])
  t.match(accessLogOf(printed), { req: { realIp: '198.51.100.23', source: 'vtoa', trust: 'trusted' } })
  fits(t, printed)
  t.match(unwrapped(printed), /request\.ip is 198\.51\.100\.23 for the stranger too/)
})

/** A PATH with these programs, of which `without` is none. */
function pathWithout (t: Test, without: string, programs: string[]): string {
  const folder = mkdtempSync(join(tmpdir(), `no-${without}-`))
  t.teardown(() => rmSync(folder, { recursive: true }))
  for (const program of programs) {
    symlinkSync(spawnSync('sh', ['-c', `command -v ${program}`], { encoding: 'utf8' }).stdout.trim(), join(folder, program))
  }
  return folder
}

const NOWHERE = join(__dirname, 'nowhere')

t.test('where nothing can write TOA it shows the peer, and says why', async (t) => {
  const printed = await run(['--once'], NOWHERE)
  t.same([printed.code, printed.stderr], [0, ''])
  t.match(printed.stdout, /Only the peer is shown/)
  t.match(unwrapped(printed), process.platform === 'linux' ? /namespace .* cannot be made here \(.*unshare/ : /namespaces are Linux's/)
  fits(t, printed)
  const rows = rowsOf(printed)
  t.ok(rows.length >= 2)
  for (const [peer, toa, realIp, source, trust] of rows) {
    t.match(peer, /^(127\.0\.0\.1|::1)$/)
    t.equal(realIp, peer)
    t.same([toa, trust], ['nothing', 'unchecked'])
    t.match(source, /^(getpeername|peer)$/)
  }
  t.match(accessLogOf(printed), { req: { method: 'GET', url: '/', realIp: rows[0]?.[0] } })

  const other = await run(['--once', '--client', '198.51.100.23'], NOWHERE)
  t.equal(other.code, 0)
  t.match(unwrapped(other), 'so that 198.51.100.23 cannot be shown')
})

t.test('bad arguments: one sentence and code 2', async (t) => {
  const bad: Array<[args: string[], says: RegExp]> = [
    [['--client', 'example.org'], /--client takes an IPv4 or IPv6 address.*'example\.org'/],
    [['--client', '198.51.100.256'], /--client takes an IPv4 or IPv6 address/],
    [['--client', 'fe80::1%eth0'], /--client takes an IPv4 or IPv6 address/],
    [['--client'], /--client needs an address/],
    [['--client='], /--client needs an address/],
    [['--once=1'], /^Unknown argument '--once=1'/],
    [['198.51.100.23'], /^Unknown argument '198\.51\.100\.23'/]
  ]
  for (const [args, says] of bad) {
    const { code, stdout, stderr } = await run(args)
    t.equal(code, 2, args.join(' '))
    t.equal(stdout, '')
    t.match(stderr, says)
    t.match(stderr, /^[^\n]+\.\n$/)
  }
})

t.test('--help', async (t) => {
  const { code, stdout, stderr } = await run(['--help'])
  t.same([code, stderr], [0, ''])
  t.match(stdout, /--client 198\.51\.100\.23[^]*--once/)
})

/** Starts the demo and waits until it takes the user's own requests. */
async function serve (t: Test) {
  const { child, printed } = spawnDemo([], undefined)
  const ended = once(child, 'close')
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
  })
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]()
  async function line (pattern: RegExp): Promise<RegExpExecArray> {
    for (;;) {
      const { value, done } = await lines.next()
      if (done === true) throw new Error(`the demo ended without ${pattern}: ${printed.stdout}${printed.stderr}`)
      const match = pattern.exec(value)
      if (match !== null) return match
    }
  }
  await line(/^Now send your own requests/)
  const [options] = await line(/^ {2}app\.register\(realIp/)
  const [, origin] = await line(/curl (http:\/\/127\.0\.0\.1:\d+\/)/) as unknown as [string, string]
  return { child, printed, ended, origin, options, line }
}

t.test('it takes the user\'s own requests until Ctrl-C, also where its port is taken', async (t) => {
  const demos = [await serve(t), await serve(t)]
  t.not(demos[0]?.origin, demos[1]?.origin)
  for (const { child, printed, ended, origin, options, line } of demos) {
    const [response] = await once(get(`${origin}hello?you=there`), 'response') as [IncomingMessage]
    const { realAddress, ip } = await json(response) as { realAddress: RealAddress, ip: string }
    t.match({ realAddress, ip }, { realAddress: { address: '127.0.0.1', family: 'IPv4' }, ip: '127.0.0.1' })
    t.equal(realAddress.trust === 'trusted', options !== '  app.register(realIp)', 'what is printed is in force')
    t.ok(await line(/GET \/hello\?you=there {2}realIp 127\.0\.0\.1 {2}source /), 'a line for it')
    child.kill('SIGINT')
    const [code] = await ended
    if (process.platform !== 'win32') t.equal(code, 0, 'ends cleanly')
    t.equal(printed.stderr, '')
  }
})
