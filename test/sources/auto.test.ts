import { constants } from 'node:os'
import { Writable } from 'node:stream'
import t, { type Test } from 'tap'
import Fastify from 'fastify'
import realIp, { type FastifyRealIpOptions, type ToaFormat } from 'fastify-real-ip'
import { type Libc, loadLibc } from '../../lib/kernel/libc'
import { checkOptions } from '../../lib/options/options'
import { chooseSources, chooseWitnesses } from '../../lib/sources/choose'

const list = { trustedPeers: ['10.0.0.0/8'] }
const VTOA = 1348
const NAT64 = 4096
const syn = { bytes: new Uint8Array(0), length: 0, tcp: -1 }

/** What 'auto' chooses where the kernel knows these optnames, and what it says of it. */
function choose (optnames: number[], options: FastifyRealIpOptions): { names: string[], said: string[] } {
  const said: string[] = []
  const sources = chooseSources(kernelOf(optnames), syn, checkOptions({ sources: 'auto', ...options }), (message) => said.push(message))
  return { names: sources.map(({ name }) => name), said }
}

/** A kernel that knows these optnames. */
function kernelOf (optnames: number[]): Libc {
  const { ESRCH, ENOPROTOOPT } = constants.errno as Record<string, number> as { ESRCH: number, ENOPROTOOPT: number }
  return {
    withSocket: (probe: (fd: number) => void) => probe(3),
    getsockopt: (_fd: number, _level: number, optname: number) => optnames.includes(optname) ? ESRCH : ENOPROTOOPT
  } as unknown as Libc
}

const noVtoa = 'no module answers 1348: vtoa is not loaded, or too old, and fastify-real-ip attach was not run for this cgroup'
const noNat64 = 'no module answers 4096: the toa module of DPVS is not loaded, or too old'
const noSyn = "it needs 'toa' and a list of 'trustedPeers'"
const silent = 'since 1.9.6 DPVS writes no TOA on the SYN, and forwards TOA that a client forged there. Load its toa.ko ' +
  "and use sources: ['getpeername'], or run fastify-real-ip attach on Linux 5.10 or later"

const rows: Array<[what: string, optnames: number[], options: FastifyRealIpOptions, names: string[], line: string]> = [
  ['no module', [], {}, ['vtoa', 'getpeername'],
    `vtoa (not now: ${noVtoa}), getpeername; not nat64 (${noNat64}), not saved-syn (${noSyn})`],
  ['vtoa', [VTOA], {}, ['vtoa', 'getpeername'],
    `vtoa, getpeername; not nat64 (${noNat64}), not saved-syn (${noSyn})`],
  ["DPVS's module", [NAT64], {}, ['vtoa', 'nat64', 'getpeername'],
    `vtoa (not now: ${noVtoa}), nat64, getpeername; not saved-syn (${noSyn})`],
  ["a list of 'trustedPeers' alone", [], list, ['vtoa', 'getpeername'],
    `vtoa (not now: ${noVtoa}), getpeername; not nat64 (${noNat64}), not saved-syn (${noSyn})`],
  ["'toa' and a list", [], { ...list, toa: 'alibaba' }, ['vtoa', 'getpeername', 'saved-syn'],
    `vtoa (not now: ${noVtoa}), getpeername, saved-syn; not nat64 (${noNat64})`],
  ["toa: 'dpvs'", [NAT64], { ...list, toa: 'dpvs' }, ['vtoa', 'nat64', 'getpeername'],
    `vtoa (not now: ${noVtoa}), nat64, getpeername; not saved-syn (${silent})`],
  ['all there is', [VTOA, NAT64], { ...list, toa: 'alibaba' }, ['vtoa', 'nat64', 'getpeername', 'saved-syn'],
    'vtoa, nat64, getpeername, saved-syn']
]

for (const [what, optnames, options, names, line] of rows) {
  t.test(`'auto' with ${what}`, async (t) => {
    const { names: chosen, said } = choose(optnames, options)
    t.same(chosen, names)
    t.same(said, [`fastify-real-ip: sources ${line}`])
  })
}

t.test("'require' says what is missing of each source, and is content with one", async (t) => {
  const choose = (require: boolean, ...optnames: number[]) =>
    chooseSources(kernelOf(optnames), syn, checkOptions({ sources: ['vtoa', 'nat64'], require }), () => {})
  t.throws(() => choose(true), { code: 'FST_REAL_IP_NATIVE_UNAVAILABLE', message: `fastify-real-ip: no configured source can work here: ${noVtoa}; ${noNat64}` })
  t.equal(choose(true, NAT64).length, 2)
  t.equal(choose(false).length, 2, 'nothing is required')
})

t.test('a list of sources: those that do not work now are named', async (t) => {
  const said: string[] = []
  const choose = (...optnames: number[]) => chooseSources(kernelOf(optnames), syn,
    checkOptions({ sources: ['vtoa', 'nat64', 'getpeername'] }), (message) => { said.push(message) })
  t.equal(choose(VTOA, NAT64).length, 3)
  t.same(said, [])
  t.equal(choose(VTOA).length, 3)
  choose()
  t.same(said, [noNat64, `${noVtoa}; ${noNat64}`].map((why) => `fastify-real-ip: some sources do not work now: ${why}`))
})

t.test("under 'toa' the SYN must not contradict the source that answers, nor with 'saved-syn' the modules", async (t) => {
  const witnesses = (options: FastifyRealIpOptions) => {
    const checked = checkOptions({ ...list, ...options })
    return chooseWitnesses(chooseSources(kernelOf([]), syn, checked, () => {}), syn, checked).map(({ name }) => name)
  }
  t.same(witnesses({ sources: ['vtoa', 'getpeername'] }), [])
  t.same(witnesses({ sources: ['vtoa', 'getpeername'], toa: 'alibaba' }), ['saved-syn'])
  t.same(witnesses({ sources: ['vtoa', 'getpeername', 'saved-syn'], toa: 'alibaba' }), ['vtoa', 'getpeername', 'saved-syn'])
  t.same(witnesses({ sources: ['vtoa', 'getpeername'], toa: 'dpvs' }), [], 'DPVS writes nothing on the SYN')
})

const format: ToaFormat = { kind: 254, length: 8, family: 'IPv4', position: 'first' }
const decisions = {
  toa: [undefined, 'alibaba', 'ucloud', 'tencent', 'dpvs', [format]],
  trustedPeers: [undefined, 'any', () => true, [], ['10.0.0.0/8']]
} as const

t.test("'auto' reads no SYN without 'toa' and a list", async (t) => {
  for (const toa of decisions.toa) {
    for (const trustedPeers of decisions.trustedPeers) {
      const options = { ...(toa && { toa }), ...(trustedPeers && { trustedPeers }) } as FastifyRealIpOptions
      const what = `toa ${JSON.stringify(toa)}, trustedPeers ${String(trustedPeers)}`
      if (toa !== undefined && !Array.isArray(trustedPeers)) {
        t.throws(() => choose([VTOA, NAT64], options), { code: 'FST_REAL_IP_INVALID_OPTION' }, what)
      } else {
        t.equal(choose([VTOA, NAT64], options).names.includes('saved-syn'), toa !== undefined && toa !== 'dpvs', what)
      }
    }
  }
})

/** What the plugin logs when it is registered. */
async function logOf (t: Test, options: FastifyRealIpOptions): Promise<Array<{ level: number, msg: string }>> {
  const lines: string[] = []
  const stream = new Writable({
    write (chunk, _encoding, done) {
      lines.push(...String(chunk).trim().split('\n'))
      done()
    }
  })
  const app = Fastify({ logger: { level: 'info', stream } })
  t.teardown(() => app.close())
  await app.register(realIp, options)
  // A second scope has the same server, and nothing new to say.
  await app.register(async (scope) => { await scope.register(realIp, options) })
  await app.ready()
  return lines.map((line) => JSON.parse(line))
}

t.test("'auto' says in one line of the log what it chose", async (t) => {
  const missing = typeof loadLibc() === 'string'
  for (const options of [{}, list, { ...list, toa: 'alibaba' }, { ...list, toa: 'dpvs' }] as const) {
    const log = await logOf(t, { sources: 'auto', ...options })
    const said = log.filter(({ msg }) => msg.startsWith('fastify-real-ip: sources '))
    if (missing) {
      t.same(said, [], 'nothing is chosen where no system call can be made')
      continue
    }
    t.match(said, [{ level: 30, msg: /^fastify-real-ip: sources vtoa\b.*\bgetpeername\b/ }])
    t.equal(said.length, 1)
    t.equal(/^[^;]*\bsaved-syn\b/.test(said[0]?.msg ?? ''), 'toa' in options && options.toa === 'alibaba', JSON.stringify(options))
  }
  const log = await logOf(t, {})
  t.same(log.filter(({ msg }) => msg.startsWith('fastify-real-ip: sources ')), [], 'who names the sources is told nothing')
})

t.test("'auto' never starts to read SYNs when the list is swapped", async (t) => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(realIp, { sources: 'auto', ...list, toa: 'alibaba' })
  for (const trustedPeers of ['any', () => true] as const) {
    t.throws(() => app.realIp.setTrustedPeers(trustedPeers), { code: 'FST_REAL_IP_INVALID_OPTION' })
  }
})
