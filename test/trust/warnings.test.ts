import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import realIp, { type FastifyRealIpOptions } from 'fastify-real-ip'
import { loadLibc, type Libc } from '../../lib/kernel/libc'
import { PeerSearch } from '../../lib/kernel/peer-search'
import { SynReader } from '../../lib/kernel/saved-syn'
import { Warnings } from '../../lib/warnings'
import { kinds, listen } from '../kinds'
import { logOf } from './log'

// Warnings that take a module to come up: test/lab/trust-live.test.ts.

const onLinux = { skip: process.platform !== 'linux' && 'not Linux' }
const [http] = kinds

async function warned (t: Test, options: FastifyRealIpOptions, more: (app: FastifyInstance) => unknown = () => {}): Promise<string[]> {
  const { logger, codes } = logOf()
  const app = Fastify({ loggerInstance: logger })
  t.teardown(() => app.close())
  await app.register(realIp, options)
  app.get('/', (request) => request.realAddress)
  await more(app)
  return codes.map((code) => code.replace('FST_REAL_IP_', ''))
}

const visits = (...localAddresses: string[]) => async (app: FastifyInstance) => {
  const port = await listen(app)
  for (const localAddress of localAddresses) {
    const client = await http!.connect(port, { localAddress })
    await client.get('/')
    await client.close()
  }
}

t.test('the process is warned by an application whose log is off', onLinux, async (t) => {
  // A process is warned of each once: by the first test.
  for (const [logger, options, code] of [
    [false, { trustedPeers: ['0.0.0.0/0'] }, 'EVERYBODY'],
    [{ level: 'silent' }, {}, 'FORGEABLE']
  ] as const) {
    const given = once(process, 'warning')
    const app = Fastify({ logger })
    t.teardown(() => app.close())
    await app.register(realIp, options)
    t.match(await given, [{ code: `FST_REAL_IP_${code}` }])
  }
})

t.test('a kernel source without trustedPeers can be forged', onLinux, async (t) => {
  t.same(await warned(t, {}, visits('127.0.0.20', '127.0.0.21')), ['FORGEABLE'])
  t.same(await warned(t, { sources: ['vtoa'] }), ['FORGEABLE'])
  t.same(await warned(t, {}, async (app) => {
    await app.register(realIp)
    await app.register(async (child) => { await child.register(realIp) })
  }), ['FORGEABLE'], 'once, however often it is registered')
  t.same(await warned(t, { trustedPeers: 'any' }, visits('127.0.0.20')), [])
  t.same(await warned(t, { trustedPeers: [] }), [])
  t.same(await warned(t, { trustedPeers: () => true }), [])
})

t.test('forwarded.trust that overlaps trustedPeers', onLinux, async (t) => {
  const overlap = (trustedPeers: string[], trust: string[]) => warned(t, { trustedPeers, forwarded: { trust } })
  t.same(await overlap(['10.0.0.0/8'], ['10.1.0.0/16']), ['OVERLAP'])
  t.same(await overlap(['10.1.0.0/16'], ['192.0.2.0/24', '10.0.0.0/8']), ['OVERLAP'])
  t.same(await overlap(['loopback'], ['::1']), ['OVERLAP'])
  t.same(await overlap(['10.0.0.0/8'], ['::ffff:10.0.0.1']), ['OVERLAP'])
  t.same(await overlap(['10.0.0.0/8'], ['11.0.0.0/8', '2001:db8::/32']), [])
  t.same(await warned(t, { trustedPeers: 'any', forwarded: { trust: ['10.0.0.0/8'] } }), [])
})

t.test('a list that everybody is in', onLinux, async (t) => {
  const header = { sources: ['proxy-protocol'] as const, trustedPeers: ['10.0.0.0/8'] }
  t.same(await warned(t, { trustedPeers: [' 0.0.0.0/0 '] }), ['EVERYBODY'])
  t.same(await warned(t, { trustedPeers: ['::/0', '10.0.0.0/8'] }), ['EVERYBODY'])
  t.same(await warned(t, { ...header, proxyProtocol: { from: ['0.0.0.0/0'] } }), ['EVERYBODY'])
  t.same(await warned(t, { forwarded: { trust: ['::/0'] } }), ['EVERYBODY'])
  t.same(await warned(t, { trustedPeers: ['10.0.0.0/8', '10.0.0.0/10'] }), [])
  t.same(await warned(t, { trustedPeers: [] }, (app) => {
    app.realIp.setTrustedPeers(['::/0'])
    app.realIp.setTrustedPeers(() => true)
    app.realIp.setTrustedPeers(['0.0.0.0/0'])
  }), ['EVERYBODY'])
  t.same(await warned(t, { forwarded: { trust: [] } }, (app) => { app.realIp.setForwardedTrust(['unix', '0.0.0.0/0']) }), ['EVERYBODY'])
})

t.test('the first peer that is not in the list, where it is this host', onLinux, async (t) => {
  t.same(await warned(t, { trustedPeers: ['127.0.0.20'] }, visits('127.0.0.20', '127.0.0.20')), [])
  t.same(await warned(t, { trustedPeers: ['127.0.0.20'] }, visits('127.0.0.20', '127.0.0.21', '127.0.0.22')), ['SIDECAR'])
  t.same(await warned(t, { forwarded: { trust: ['127.0.0.20'] } }, visits('127.0.0.20')), [], 'a proxy on this host')
  const beside = { trustedPeers: ['127.0.0.20'], forwarded: { trust: ['127.0.0.21'] } }
  t.same(await warned(t, beside, visits('127.0.0.21')), [], 'a proxy of forwarded.trust may be there')
  t.same(await warned(t, beside, visits('127.0.0.21', '127.0.0.22')), ['SIDECAR'], 'another that comes after it may not')
})

t.test('nothing is said of a module where getpeername alone answers, whoever was looked for', onLinux, async (t) => {
  const { ask, disagrees } = PeerSearch.prototype
  const { read } = SynReader.prototype
  t.teardown(() => {
    Object.assign(PeerSearch.prototype, { ask, disagrees })
    SynReader.prototype.read = read
  })
  PeerSearch.prototype.disagrees = () => true
  const behindProxies = async (options: FastifyRealIpOptions) => {
    const { logger, codes } = logOf()
    const app = Fastify({ loggerInstance: logger, trustProxy: true })
    t.teardown(() => app.close())
    await app.register(realIp, { sources: ['vtoa', 'getpeername'], ...options })
    app.get('/', (request) => request.realAddress)
    await visits('127.0.0.20')(app)
    return codes
  }
  t.same(await behindProxies({}), ['FST_REAL_IP_FORGEABLE'])
  t.same(await behindProxies({ trustedPeers: ['127.0.0.20'] }), [])
  SynReader.prototype.read = () => false
  t.same(await behindProxies({ trustedPeers: ['127.0.0.20'] }), ['FST_REAL_IP_EMPTY_SYN'])
  PeerSearch.prototype.ask = (_fd, found) => { found(undefined) }
  t.same(await behindProxies({ trustedPeers: ['127.0.0.20'] }), ['FST_REAL_IP_EMPTY_SYN'], 'and he is not found')
})

t.test('nothing is said of SYN cookies where the listener cannot keep a SYN at all', onLinux, async (t) => {
  // 'any' puts up with it.
  const libc = loadLibc() as Libc
  const { setsockopt } = libc
  libc.setsockopt = () => 95
  t.teardown(() => { libc.setsockopt = setsockopt })
  t.same(await warned(t, { trustedPeers: 'any' }, visits('127.0.0.20')), [])
})

interface Said {
  readonly lines: Array<[fields: object, message: string]>
  readonly process: string[]
}

/** What two warnings come to, one of them twice, in a log that has them or not. */
async function say (t: Test, isLevelEnabled?: (level: string) => boolean): Promise<Said> {
  const lines: Said['lines'] = []
  const ofProcess: Said['process'] = []
  const onWarning = ({ code }: Error & { code?: string }) => { if (code?.startsWith('FST_REAL_IP_') === true) ofProcess.push(code) }
  process.on('warning', onWarning)
  t.teardown(() => process.off('warning', onWarning))
  const warnings = new Warnings({
    warn: (fields: object, message?: string) => { lines.push([fields, message ?? '']) },
    error () {},
    info () {},
    ...(isLevelEnabled && { isLevelEnabled })
  })
  for (const code of ['SIDECAR', 'OVERLAP', 'SIDECAR'] as const) warnings.warn(code)
  await new Promise((resolve) => setImmediate(resolve))
  process.off('warning', onWarning)
  return { lines, process: ofProcess }
}

const logged = [
  [{ code: 'FST_REAL_IP_SIDECAR' }, /^fastify-real-ip: a connection that is not from a trusted peer /],
  [{ code: 'FST_REAL_IP_OVERLAP' }, /^fastify-real-ip: 'forwarded\.trust' overlaps /]
]

t.test('each is given once, with its code and what it says', async (t) => {
  const { lines, process } = await say(t, (level) => level === 'warn')
  t.match(lines, logged)
  t.equal(lines.length, 2)
  t.same(process, [])
})

t.test('where the log is off, or cannot say whether it is on, the process is warned, once however many logs there are', async (t) => {
  for (const isLevelEnabled of [() => false, undefined]) {
    const program = `
      const { Warnings } = require(${JSON.stringify(require.resolve('../../lib/warnings'))})
      const off = ${isLevelEnabled === undefined ? 'undefined' : '() => false'}
      const log = { warn () { console.log('logged') }, error () {}, info () {}, ...(off && { isLevelEnabled: off }) }
      process.on('warning', ({ name, code, message }) => console.log(name, code, message.slice(0, 45)))
      for (let n = 0; n < 2; n++) {
        const warnings = new Warnings(log)
        for (const code of ['SIDECAR', 'OVERLAP', 'SIDECAR']) warnings.warn(code)
      }`
    const lines = execFileSync(process.execPath, ['-e', program], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim().split('\n')
    t.same(lines.filter((line) => line !== 'logged'), [
      'FastifyRealIpWarning FST_REAL_IP_SIDECAR a connection that is not from a trusted peer ',
      "FastifyRealIpWarning FST_REAL_IP_OVERLAP 'forwarded.trust' overlaps 'trustedPeers': an"
    ])
    t.equal(lines.filter((line) => line === 'logged').length, isLevelEnabled === undefined ? 4 : 0)
  }
})

t.test('a log that throws ends nothing', async (t) => {
  const fail = () => { throw new Error('a serializer of the user') }
  const warnings = new Warnings({ warn: fail, error: fail, info: fail, isLevelEnabled: fail })
  t.doesNotThrow(() => {
    warnings.warn('SIDECAR')
    warnings.info('hello')
    warnings.error('hello')
  })
})

t.test('a hundred connections of trusted peers without any claim, and not one fewer', onLinux, async (t) => {
  const addresses = (count: number) => Array.from({ length: count }, (_, n) => `127.0.3.${n + 1}`)
  const list = { trustedPeers: ['127.0.3.0/24'] }
  t.same(await warned(t, list, visits(...addresses(99))), [])
  t.same(await warned(t, list, visits(...addresses(100))), ['NO_TOA'])
  t.same(await warned(t, { trustedPeers: [] }, visits(...addresses(100))), ['SIDECAR'], 'strangers have none to send')
})

t.test('what a callback of the search throws is logged', async (t) => {
  const { logger, errors } = logOf()
  new Warnings(logger).searchFailed(new Error('no'))
  t.match(errors, [/^fastify-real-ip: a search for the sender of a connection failed/])
})
