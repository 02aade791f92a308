import { once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import { getSystemErrorName } from 'node:util'
import t, { type Test } from 'tap'
import realIp, { type FastifyRealIpOptions, type RealAddress } from 'fastify-real-ip'
import { loadLibc, type Libc } from '../../lib/kernel/libc'
import { kinds, listen } from '../kinds'
import { balancerAddresses, hasIPv6, serverAddresses } from '../player/namespace'
import { openPlayer } from '../player/player'
import { mss, toa as toaOption } from '../player/tcp-options'
import { testInNamespace } from '../player/test-in-namespace'
import { inLab } from './in-lab'
import type { Lab, Oracle, OracleRun, OracleTally, Played, Stamp, StampingClient } from './lab'

// The modules other than plain vtoa, by the stand-in that plays them, and what the plugin makes of each. In a namespace, so
// that nobody else's sysctls are touched.

const CONNECTIONS = 40

t.setTimeout(300_000)

/** Where servers listen, where clients come from, and what kind of socket that makes. */
const routes = [
  { listener: '127.0.0.1', from: '127.0.0.1', family: 'AF_INET' },
  { listener: '::1', from: '::1', family: 'AF_INET6' },
  { listener: '::', from: '127.0.0.1', family: 'AF_INET6' },
  { listener: '::', from: '::1', family: 'AF_INET6' }
] as const
type Family = typeof routes[number]['family']
const routesHere = () => routes.filter(({ family }) => family === 'AF_INET' || hasIPv6())

/** `trustedPeers`, and who is said to have answered: with a claim, and without. */
const policies = {
  none: { options: {}, claim: 'unchecked', absent: 'unchecked' },
  listed: { options: { trustedPeers: ['127.0.0.1', '::1'] }, claim: 'trusted', absent: 'transport-peer trusted no-toa' },
  unlisted: {
    options: { trustedPeers: ['192.0.2.1'] }, claim: 'transport-peer untrusted untrusted-peer', absent: 'transport-peer untrusted'
  }
} as const satisfies Record<string, { options: FastifyRealIpOptions, claim: string, absent: string }>
type Policy = keyof typeof policies

async function serve (t: Test, options: FastifyRealIpOptions, listener = '127.0.0.1', kind = 'http', logger: object | false = false): Promise<number> {
  const app = kinds.find(({ name }) => name === kind)!.create({ forceCloseConnections: true, logger })
  await app.register(realIp, options)
  app.get('/whoami', ({ realAddress }) => ({ realIp: realAddress.address, port: realAddress.port, source: provenance(realAddress) }))
  app.get('/sender', ({ realAddress: { transportPeer } }) => ({ realIp: transportPeer?.address, port: transportPeer?.port }))
  app.get('/virtual-server', ({ realAddress: { address, port, virtualServer } }) => ({
    realIp: address, port, source: JSON.stringify(virtualServer) ?? 'none'
  }))
  app.get('/', ({ realAddress }) => realAddress)
  t.teardown(() => app.close())
  return await listen(app, { host: listener })
}

const provenance = ({ source, trust, reason, attempts }: RealAddress): string =>
  [source, trust, reason, ...attempts.map(({ source, reason }) => `${source}:${reason}`)].filter((part) => part !== undefined).join(' ')

function allRight (t: Test, tally: OracleTally, count: number, what: string): void {
  const { right, wrong, errors } = tally
  t.same({ right, wrong, errors }, { right: count, wrong: 0, errors: 0 },
    what + (right === count ? '' : ` ${JSON.stringify(tally.samples[0] ?? tally.messages[0])}`))
}

async function openClient (t: Test, lab: Lab): Promise<{ client: StampingClient, oracle: Oracle }> {
  const client = await lab.client()
  const oracle = client.oracle()
  t.teardown(() => oracle.close())
  return { client, oracle }
}

async function runAll (t: Test, oracle: Oracle, run: OracleRun, what: string): Promise<void> {
  const { connections = CONNECTIONS } = run
  allRight(t, await oracle.run({ ...run, connections }), connections, what)
}

/** The whole answer on one connection: what is wrong comes as a sample, and no client is nowhere. */
async function get (oracle: Oracle, port: number): Promise<RealAddress> {
  const { samples, messages } = await oracle.run({ port, path: '/', expect: { address: 'nowhere' } })
  if (samples[0] === undefined) throw new Error(messages[0])
  return samples[0].got as RealAddress
}

function setSysctl (t: Test, name: string, value: string): void {
  const file = `/proc/sys/net/ipv4/${name}`
  const before = readFileSync(file, 'utf8')
  writeFileSync(file, value)
  t.teardown(() => writeFileSync(file, before))
}

// vtoa's longest option fills a header, so that the segment may have none of the kernel's own. Balancers replace them.
const makeRoom = (t: Test) => { setSysctl(t, 'tcp_timestamps', '0') }

/** The options of vtoa that tell more than the client. */
const vip = { v4: '192.0.2.80', v6: '2001:db8:80::1' }
const clientAddress = { v4: '203.0.113.7', v6: '2001:db8::7' }
const vipBytes = { v4: [192, 0, 2, 80], v6: [0x20, 1, 0xd, 0xb8, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1] }
const clientBytes = { v4: [203, 0, 113, 7], v6: [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7] }
const uint16 = (value: number) => [value >> 8, value & 255]
const hostUint32 = (value: number) => [...new Uint8Array(Uint32Array.of(value).buffer)]

const forms = {
  254: (port: number) => [254, 8, ...uint16(port), ...clientBytes.v4],
  253: (port: number) => [253, 20, ...uint16(port), ...clientBytes.v6],
  252: (port: number, vpcId: number, vport: number) =>
    [252, 20, ...uint16(port), ...clientBytes.v4, ...hostUint32(vpcId), ...vipBytes.v4, ...uint16(vport), 0, 0],
  250: (vport: number) => [250, 8, ...uint16(vport), ...vipBytes.v4],
  249: (port: number, vpcId: number) =>
    [249, 40, ...uint16(port), ...clientBytes.v6, vpcId >> 16, ...uint16(vpcId & 0xffff), 0, ...vipBytes.v6]
}
const stampOf = (...options: number[][]): Stamp => ({ bytes: Uint8Array.from(options.flat()), on: ['ack'] })

testInNamespace(__filename, () => {
  inLab('the stand-in answers byte by byte as the modules do', async (t, lab) => {
    makeRoom(t)
    const { client, oracle } = await openClient(t, lab)
    const ask = await openBare(t, oracle)
    const ESRCH = { error: 'ESRCH' }
    const EINVAL = { error: 'EINVAL' }
    const ENOPROTOOPT = { error: 'ENOPROTOOPT' }

    lab.module.start()
    client.set(stampOf(forms[252](51234, 1193046, 8443)))
    t.same(await ask(1345), { bytes: [...hostUint32(1193046), ...vipBytes.v4, ...uint16(8443), 0, 0], optlen: 64 })
    t.same(await ask(1345, 11), EINVAL)
    t.match(await ask(1345, 12), { optlen: 12 })
    const zeros = Array(12).fill(0)
    t.same(await ask(1347), { bytes: [...hostUint32(1193046), ...vipBytes.v4, ...zeros, 2, 0, ...uint16(8443)], optlen: 64 })
    t.same(await ask(1347, 23), EINVAL)
    client.set(stampOf(forms[249](51234, 0x123456)))
    t.same(await ask(1345), ESRCH, 'IPv4 alone')
    t.same(await ask(1347), { bytes: [...hostUint32(0x123456), ...vipBytes.v6, 10, 0, 0, 0], optlen: 64 })
    t.same(await ask(1348), { bytes: [10, 0, ...uint16(51234), 0, 0, 0, 0, ...clientBytes.v6, 0, 0, 0, 0], optlen: 64 })
    client.set(stampOf(forms[250](8443)))
    t.same(await ask(1345), { bytes: [0, 0, 0, 0, ...vipBytes.v4, ...uint16(8443), 0, 0], optlen: 64 })
    t.same(await ask(1348), ESRCH, 'a VIP is no client')
    client.set(stampOf(forms[254](51234), forms[250](8443)))
    t.same(await ask(1345), { bytes: [0, 0, 0, 0, ...vipBytes.v4, ...uint16(8443), 0, 0], optlen: 64 }, 'behind the client')
    client.set(stampOf(forms[254](51234)))
    t.same(await ask(1345), ESRCH)
    t.same(await ask(1347), ESRCH)
    t.same(await ask(1347, 23), EINVAL)
    t.same(await ask(4096), ENOPROTOOPT)
    lab.module.start({ virtualServer: [1345] })
    t.same(await ask(1347), ENOPROTOOPT)
    lab.module.start({ virtualServer: [] })
    t.same(await ask(1345), ENOPROTOOPT)

    lab.module.start({ as: 'dpvs' })
    t.same(await ask(4096), { error: 'EFAULT' })
    t.same(await ask(4096, 19), EINVAL)
    t.same(await ask(1348), ENOPROTOOPT)
    client.set(stampOf(forms[253](51234)))
    t.same(await ask(4096), EINVAL, '253 is none of its kinds')
    client.set({ address: clientAddress.v6, port: 51234, kind: 254 })
    const nat64 = await ask(4096)
    t.same(nat64.bytes?.slice(0, 18), [...clientBytes.v6, ...uint16(51234)])
    t.notMatch(nat64.bytes?.slice(18, 20), [0, 0], 'padding is not zeroed')
    t.match(await ask(4096, 20), { optlen: 20 })
    t.equal(nat64.optlen, 20, 'optlen is set')
    t.same(await ask(4096, 19), EINVAL)

    for (const as of ['ucloud', 'huawei'] as const) {
      lab.module.start({ as })
      for (const optname of [1345, 1347, 1348, 4096]) t.same(await ask(optname), ENOPROTOOPT, `${as}, ${optname}`)
    }
  })

  inLab('getpeername under every module', async (t, lab) => {
    makeRoom(t)
    const { client, oracle } = await openClient(t, lab)
    const rows: Array<[as: NonNullable<Played['as']>, form: string, stamp: Stamp | null, rewritten: Family[]]> = [
      ['vtoa', '254/8', { on: ['ack'] }, ['AF_INET', 'AF_INET6']],
      ['vtoa', '253/20', { derive: 'v6' }, ['AF_INET6']],
      ['vtoa', '252/20', { kind: 252, length: 20 }, ['AF_INET']],
      ['vtoa', '249/40', { derive: 'v6', kind: 249, length: 40 }, ['AF_INET6']],
      ['vtoa', '250/8', { kind: 250 }, []],
      ['dpvs', '254/8', {}, ['AF_INET', 'AF_INET6']],
      ['dpvs', '254/20', { derive: 'v6', kind: 254 }, ['AF_INET6']],
      ['dpvs', '253/20', { derive: 'v6' }, []],
      ['dpvs', 'no TOA', null, []],
      ['ucloud', '200/8', { kind: 200 }, ['AF_INET', 'AF_INET6']],
      ['ucloud', '254/8', {}, ['AF_INET', 'AF_INET6']],
      ['ucloud', '253/8', { kind: 253 }, ['AF_INET', 'AF_INET6']],
      ['ucloud', '253/20', { derive: 'v6' }, []],
      ['huawei', '254/8', {}, ['AF_INET']],
      ['huawei', '200/8', { kind: 200 }, []]
    ]
    for (const { listener, from, family } of routesHere()) {
      for (const policy of Object.keys(policies) as Policy[]) {
        const { options, claim, absent } = policies[policy]
        const port = await serve(t, { sources: ['getpeername'], ...options }, listener)
        for (const [as, form, stamp, rewritten] of rows) {
          lab.module.start({ as, getsockopt: false })
          client.set(stamp)
          const claims = rewritten.includes(family)
          const source = claims ? claim : absent
          const run: OracleRun = {
            host: from,
            port,
            expect: claims && policy !== 'unlisted' ? 'stamped' : 'peer',
            source: source.startsWith('transport-peer') ? source : `getpeername ${source}`,
            then: 'keep'
          }
          const what = `${as} ${form} on ${listener} from ${from}, trustedPeers ${policy}`
          await runAll(t, oracle, run, what)
          if (policy !== 'none') {
            const again = await oracle.again({ path: '/sender', expect: 'peer', then: 'end' })
            allRight(t, again, CONNECTIONS, `${what}: the transport peer`)
          }
          await oracle.drop()
        }
      }
    }
  })

  inLab('sources that answer a client of either family, over HTTP/2', async (t, lab) => {
    const { client, oracle } = await openClient(t, lab)
    const port = await serve(t, { sources: ['nat64', 'getpeername'], ...policies.listed.options }, '127.0.0.1', 'h2')
    const run = { port, protocol: 'h2' as const, requests: 2, connections: CONNECTIONS }
    lab.module.start({ as: 'dpvs' })
    client.set({})
    allRight(t, await oracle.run({ ...run, source: 'getpeername trusted nat64:EFAULT' }), 2 * CONNECTIONS, 'IPv4')
    client.set({ derive: 'v6', kind: 254 })
    allRight(t, await oracle.run({ ...run, source: 'nat64 trusted' }), 2 * CONNECTIONS, 'NAT64')
    lab.module.start({ as: 'ucloud' })
    client.set({ kind: 200 })
    allRight(t, await oracle.run({ ...run, source: 'getpeername trusted nat64:ENOPROTOOPT' }), 2 * CONNECTIONS, 'UCloud')
  })

  inLab("'nat64' tells its three reasons apart", async (t, lab) => {
    const { client, oracle } = await openClient(t, lab)
    const nat64: Stamp = { derive: 'v6', kind: 254 }
    const rows: Array<[what: string, stamp: Stamp | null, family: Family, source: string, attempt: string]> = [
      ['no TOA', null, 'AF_INET', 'absent', 'nat64:EINVAL'],
      ['IPv4', {}, 'AF_INET', 'getpeername', 'nat64:EFAULT'],
      ['NAT64', nat64, 'AF_INET', 'nat64', ''],
      ['no TOA', null, 'AF_INET6', 'absent', 'nat64:EINVAL'],
      ['IPv4', {}, 'AF_INET6', 'getpeername', 'nat64:EFAULT'],
      ['IPv6', nat64, 'AF_INET6', 'getpeername', 'nat64:EFAULT']
    ]
    for (const { listener, from, family } of routesHere()) {
      for (const policy of Object.keys(policies) as Policy[]) {
        const { options, claim, absent } = policies[policy]
        const port = await serve(t, { sources: ['nat64', 'getpeername'], ...options }, listener)
        const ask = async (what: string, expect: 'stamped' | 'peer', source: string, attempt: string) => {
          await runAll(t, oracle, { host: from, port, expect, source: `${source} ${attempt}`.trim() },
            `${what} on ${listener} from ${from}, trustedPeers ${policy}`)
        }
        const ofAbsent = absent === 'unchecked' ? `getpeername ${absent}` : absent
        lab.module.start({ as: 'dpvs' })
        for (const [what, stamp, onFamily, source, attempt] of rows) {
          if (onFamily !== family) continue
          client.set(stamp)
          if (source === 'absent') await ask(what, 'peer', ofAbsent, attempt)
          else if (policy === 'unlisted') await ask(what, 'peer', claim, attempt)
          else await ask(what, 'stamped', `${source} ${claim}`, attempt)
        }
        lab.module.stop()
        client.set(nat64)
        await ask('no module', 'peer', ofAbsent, 'nat64:ENOPROTOOPT')
      }
    }
  })

  inLab('an IPv6 answer on an IPv4 socket', async (t, lab) => {
    makeRoom(t)
    const { client, oracle } = await openClient(t, lab)
    lab.module.start()
    for (const policy of ['none', 'listed'] as const) {
      const { options, claim } = policies[policy]
      for (const kind of ['http', 'h2'] as const) {
        const port = await serve(t, { sources: ['vtoa'], ...options }, '127.0.0.1', kind)
        for (const stamp of [{ derive: 'v6' }, { derive: 'v6', kind: 249, length: 40 }, { kind: 252, length: 20 }, {}] as const) {
          client.set({ ...stamp, on: ['ack'] })
          await runAll(t, oracle, { port, protocol: kind, source: `vtoa ${claim}` }, `${JSON.stringify(stamp)}, ${kind}, trustedPeers ${policy}`)
        }
      }
      const port = await serve(t, { sources: ['vtoa'], ...options })
      client.set(stampOf(forms[249](51234, 1)))
      t.match(await get(oracle, port), { address: clientAddress.v6, family: 'IPv6', port: 51234, source: 'vtoa' })
    }
  })

  inLab('the virtual server', async (t, lab) => {
    makeRoom(t)
    const { client, oracle } = await openClient(t, lab)
    const path = '/virtual-server'
    const v4 = { address: vip.v4, family: 'IPv4', port: 8443 }
    const v6 = { address: vip.v6, family: 'IPv6' }
    const rows: Array<[what: string, stamp: Stamp | null, client: 'v4' | 'v6' | undefined, virtualServer: object | undefined, optnames: number[]]> = [
      ['252/20', stampOf(forms[252](51234, 1193046, 8443)), 'v4', { vpcId: 1193046, ...v4 }, [1345, 1347]],
      ['252/20 without VPC', stampOf(forms[252](51234, 0, 8443)), 'v4', v4, [1345, 1347]],
      ['252/20 without port', stampOf(forms[252](51234, 7, 0)), 'v4', { vpcId: 7, address: vip.v4, family: 'IPv4' }, [1345, 1347]],
      ['254/8 and 250/8', stampOf(forms[254](51234), forms[250](8443)), 'v4', v4, [1345, 1347]],
      ['250/8', stampOf(forms[250](8443)), undefined, v4, [1345, 1347]],
      ['249/40', stampOf(forms[249](51234, 0x123456)), 'v6', { vpcId: 0x123456, ...v6 }, [1347]],
      ['249/40, its id unknown', stampOf(forms[249](51234, 0xffffff)), 'v6', v6, [1347]],
      ['254/8', stampOf(forms[254](51234)), 'v4', undefined, []],
      ['253/20', stampOf(forms[253](51234)), 'v6', undefined, []],
      ['no TOA', null, undefined, undefined, []]
    ]
    const ways: Array<[what: string, played: Played, optnames: number[]]> = [
      ['1345 and 1347', {}, [1345, 1347]],
      ['1345 alone', { virtualServer: [1345] }, [1345]],
      ['1347 alone', { virtualServer: ['1347 of IPv4', '1347 of IPv6'] }, [1347]],
      ['1347 of IPv6 alone beside 1345, as in the public source', { virtualServer: [1345, '1347 of IPv6'] }, [1345, 1347]],
      ['1348 alone', { virtualServer: [] }, []]
    ]
    const asked = countAsked(t)
    for (const policy of ['none', 'listed', 'unlisted'] as const) {
      const { options } = policies[policy]
      for (const [way, played, here] of policy === 'unlisted' ? ways.slice(0, 1) : ways) {
        lab.module.start(played)
        const port = await serve(t, { virtualServer: true, ...options })
        const without = await serve(t, options)
        for (const [what, stamp, family, virtualServer, optnames] of rows) {
          client.set(stamp)
          const expected = policy !== 'unlisted' && optnames.some((optname) => here.includes(optname)) ? virtualServer : undefined
          const expect = family === undefined || policy === 'unlisted' ? 'peer' : { address: clientAddress[family], port: 51234 }
          const run = { port, path, expect, connections: 10 } as const
          await runAll(t, oracle, { ...run, source: JSON.stringify(expected) ?? 'none' }, `${what}, ${way}, trustedPeers ${policy}`)
          const before = asked(1345) + asked(1347)
          await runAll(t, oracle, { ...run, port: without, source: 'none' }, 'without the option')
          t.equal(asked(1345) + asked(1347), before, 'nothing is asked')
        }
      }
    }
    t.ok(asked(1345) > 0 && asked(1347) > 0)
    client.set(null)
    t.notOk('virtualServer' in await get(oracle, await serve(t, { virtualServer: true })), 'absent where there is none')

    // Two clients at once, each through a virtual server of its own.
    lab.module.start()
    const [one, two] = [await openClient(t, lab), await openClient(t, lab)]
    one.client.set(stampOf(forms[252](1111, 11, 1)))
    two.client.set(stampOf(forms[249](2222, 22)))
    for (const kind of ['http', 'h2'] as const) {
      const port = await serve(t, { virtualServer: true, ...policies.listed.options }, '127.0.0.1', kind)
      const run = { port, protocol: kind, path, connections: 300, requests: 2 }
      const tallies = await Promise.all([
        one.oracle.run({ ...run, expect: { address: clientAddress.v4, port: 1111 }, source: JSON.stringify({ vpcId: 11, ...v4, port: 1 }) }),
        two.oracle.run({ ...run, expect: { address: clientAddress.v6, port: 2222 }, source: JSON.stringify({ vpcId: 22, ...v6 }) })
      ])
      for (const tally of tallies) allRight(t, tally, 600, `two at once, ${kind}`)
    }
  })

  inLab('a SYN that says otherwise than the module', async (t, lab) => {
    const player = openPlayer()
    t.teardown(() => player.close())
    const of = (kind: number, family: 'v4' | 'v6' = 'v4') => toaOption(kind, clientAddress[family], 51234)
    const forged = (kind: number, address = '198.51.100.66') => toaOption(kind, address, 666)
    const nat64 = [{ kind: 254, length: 20, family: 'IPv6', position: 'first' }] as const
    const rows: Array<[as: NonNullable<Played['as']>, toa: NonNullable<FastifyRealIpOptions['toa']>, listener: string, syn: Uint8Array, ack: Uint8Array, source: string]> = [
      ['ucloud', 'ucloud', '0.0.0.0', of(200), of(200), 'getpeername trusted nat64:ENOPROTOOPT'],
      ['ucloud', 'ucloud', '0.0.0.0', forged(200), of(200), 'transport-peer trusted ambiguous nat64:ENOPROTOOPT'],
      ['ucloud', 'ucloud', '::', forged(200), of(200), 'transport-peer trusted ambiguous nat64:ENOPROTOOPT'],
      // No format of this balancer's, so that nothing contradicts.
      ['ucloud', 'ucloud', '0.0.0.0', forged(254), of(200), 'getpeername trusted nat64:ENOPROTOOPT'],
      ['huawei', 'alibaba', '0.0.0.0', forged(254), of(254), 'transport-peer trusted ambiguous nat64:ENOPROTOOPT'],
      ['huawei', 'alibaba', '::', of(254), of(254), 'transport-peer trusted no-toa nat64:ENOPROTOOPT'],
      ['dpvs', 'alibaba', '0.0.0.0', forged(254), of(254), 'transport-peer trusted ambiguous nat64:EFAULT'],
      // This balancer is known not to stamp the SYN.
      ['dpvs', 'dpvs', '0.0.0.0', forged(254), of(254), 'getpeername trusted nat64:EFAULT'],
      ['dpvs', 'dpvs', '::', forged(254), of(254), 'getpeername trusted nat64:EFAULT'],
      ['dpvs', 'dpvs', '0.0.0.0', forged(254, '2001:db8::66'), of(254, 'v6'), 'nat64 trusted'],
      ['dpvs', nat64, '0.0.0.0', of(254, 'v6'), of(254, 'v6'), 'nat64 trusted'],
      ['dpvs', nat64, '0.0.0.0', forged(254, '2001:db8::66'), of(254, 'v6'), 'transport-peer trusted ambiguous']
    ]
    for (const [as, toa, listener, syn, ack, expected] of rows) {
      if (listener === '::' && !hasIPv6()) continue
      lab.module.start({ as })
      const port = await serve(t, {
        sources: ['nat64', 'getpeername'], toa, trustedPeers: [balancerAddresses.IPv4], invalid: 'ignore'
      }, listener)
      const connection = await player.connect({
        source: balancerAddresses.IPv4, destination: serverAddresses.IPv4, port, syn: { options: [syn, mss(1460)] }, ack: { options: [ack] }
      })
      const { body } = await connection.request('GET / HTTP/1.1\r\nHost: x\r\n\r\n')
      connection.destroy()
      const answer: RealAddress = JSON.parse(body)
      t.equal(provenance(answer), expected, `${as}, toa ${JSON.stringify(toa)}, ${listener}`)
      const client = clientAddress[ack.length === 20 ? 'v6' : 'v4']
      t.equal(answer.address, expected.startsWith('transport-peer') ? balancerAddresses.IPv4 : client)
    }
  })

  inLab('SYN cookies leave no SYN that could contradict a module', async (t, lab) => {
    setSysctl(t, 'tcp_syncookies', '2')
    const { client, oracle } = await openClient(t, lab)
    const toa = [{ kind: 254, length: 8, family: 'IPv4', position: 'last' }] as const
    const port = await serve(t, { sources: ['vtoa', 'getpeername', 'saved-syn'], toa, ...policies.listed.options })
    client.set({ on: ['ack'] })
    // With 1348 alone, getpeername gives the transport peer, as it does to vtoa's IPv6 clients of an IPv4 socket.
    lab.module.start({ getpeername: false })
    await runAll(t, oracle, { port, source: 'vtoa trusted' }, 'getpeername gives the transport peer')
    client.set(null)
    await runAll(t, oracle, { port, expect: 'peer', source: 'transport-peer trusted no-toa vtoa:ESRCH getpeername:transport-peer saved-syn:no-saved-syn' }, 'no claim')
  })

  inLab("sources: 'auto' on a machine with a module", async (t, lab) => {
    const { client, oracle } = await openClient(t, lab)
    const toa = [{ kind: 254, length: 8, family: 'IPv4', position: 'last' }] as const
    const nat64: Stamp = { derive: 'v6', kind: 254 }
    const rows: Array<[played: Played | undefined, options: FastifyRealIpOptions, stamp: Stamp, chosen: RegExp, source: string]> = [
      [undefined, {}, {},
        /vtoa \(not now: .*1348.*\), getpeername; not nat64 \(.*4096.*\), not saved-syn/, 'getpeername unchecked vtoa:ENOPROTOOPT'],
      [{}, {}, {},
        /vtoa, getpeername; not nat64 \(.*\), not saved-syn/, 'vtoa unchecked'],
      [{}, policies.listed.options, { derive: 'v6' },
        /vtoa, getpeername; not nat64 \(.*\), not saved-syn/, 'vtoa trusted'],
      [{ as: 'dpvs' }, policies.listed.options, nat64,
        /vtoa \(not now: .*\), nat64, getpeername; not saved-syn/, 'nat64 trusted vtoa:ENOPROTOOPT'],
      [{ as: 'dpvs' }, { ...policies.listed.options, toa: 'dpvs' }, {},
        /vtoa \(not now: .*\), nat64, getpeername; not saved-syn \(since 1\.9\.6 DPVS/, 'getpeername trusted vtoa:ENOPROTOOPT nat64:EFAULT'],
      [{ as: 'ucloud' }, {}, { kind: 200 },
        /vtoa \(not now: .*\), getpeername; not nat64 \(.*\), not saved-syn/, 'getpeername unchecked vtoa:ENOPROTOOPT'],
      [undefined, { ...policies.listed.options, toa }, {},
        /vtoa \(not now: .*\), getpeername, saved-syn; not nat64/, 'saved-syn trusted vtoa:ENOPROTOOPT getpeername:transport-peer'],
      // Without a format nothing on the SYN counts.
      [undefined, policies.listed.options, {},
        /vtoa \(not now: .*\), getpeername; not nat64 \(.*\), not saved-syn/, 'transport-peer trusted no-toa vtoa:ENOPROTOOPT'],
      [{}, { ...policies.listed.options, toa }, {},
        /vtoa, getpeername, saved-syn; not nat64/, 'vtoa trusted']
    ]
    for (const [played, options, stamp, chosen, source] of rows) {
      lab.module.stop()
      if (played !== undefined) lab.module.start(played)
      client.set(stamp)
      const what = `${JSON.stringify(played ?? 'no module')} ${JSON.stringify(options)}`
      const lines: string[] = []
      const stream = { write: (line: string) => { lines.push(JSON.parse(line).msg) } }
      const port = await serve(t, { sources: 'auto', ...options }, '127.0.0.1', 'http', { level: 'info', stream })
      const said = lines.filter((line) => line.startsWith('fastify-real-ip: sources '))
      t.equal(said.length, 1, what)
      t.match(said[0], chosen, what)
      const claims = played !== undefined || 'toa' in options
      await runAll(t, oracle, { port, expect: claims ? 'stamped' : 'peer', source }, what)
    }
  })
})

/** How often the plugin has asked for an optname. */
function countAsked (t: Test): (optname: number) => number {
  const libc = loadLibc() as Libc
  const { getsockopt } = libc
  const counts = new Map<number, number>()
  libc.getsockopt = (fd, level, optname, ...rest) => {
    counts.set(optname, (counts.get(optname) ?? 0) + 1)
    return getsockopt(fd, level, optname, ...rest)
  }
  t.teardown(() => { libc.getsockopt = getsockopt })
  return (optname) => counts.get(optname) ?? 0
}

interface BareAnswer { error?: string, bytes?: number[], optlen?: number }

/** Asks about a new connection of the client's with bare system calls: what was written, and the length that came back. */
async function openBare (t: Test, oracle: Oracle): Promise<(optname: number, optlen?: number) => Promise<BareAnswer>> {
  const koffi = require('koffi') as typeof import('koffi', { with: { 'resolution-mode': 'import' } })
  const getsockopt = koffi.load(null).func('int getsockopt(int, int, int, _Inout_ uint8_t *, _Inout_ uint32_t *)')
  const UNTOUCHED = 0xee
  let last: BareAnswer = {}

  function call (fd: number, optname: number, optlen: number): BareAnswer {
    const buffer = Buffer.alloc(64, UNTOUCHED)
    const len: [number] = [optlen]
    if (getsockopt(fd, 0, optname, buffer, len) !== 0) return { error: getSystemErrorName(-koffi.errno()) }
    return { bytes: [...buffer.subarray(0, buffer.findLastIndex((byte) => byte !== UNTOUCHED) + 1)], optlen: len[0] }
  }

  const server = http.createServer(({ socket, url }, response) => {
    const [, optname, optlen] = url!.split('/').map(Number) as [number, number, number]
    last = call((socket as unknown as { _handle: { fd: number } })._handle.fd, optname, optlen)
    response.end('{}')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.close()
    server.closeAllConnections()
  })
  const { port } = server.address() as AddressInfo
  return async (optname, optlen = 64) => {
    await oracle.run({ port, path: `/${optname}/${optlen}`, expect: { address: 'nowhere' } })
    return last
  }
}
