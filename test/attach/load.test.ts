import { parseArgs } from 'node:util'
import Fastify from 'fastify'
import type { Test } from 'tap'
import realIp from 'fastify-real-ip'
import { run } from '../cli/cli'
import { listen } from '../kinds'
import type { OracleTally } from '../lab/lab'
import { type AttachLab, inAttachLab } from './attach-lab'

// The long form: node dist/test/attach/load.test.js --connections 100000

const { values } = parseArgs({ options: { connections: { type: 'string', default: '3000' } } })
const connections = Number(values.connections)
const timeout = 60_000 + connections * 10
const lists = ['127.0.0.1', '127.0.0.0/8', '10.0.0.0/8,127.0.0.1,::1', 'any']

async function serve (t: Test, { lab }: AttachLab) {
  const app = Fastify()
  await app.register(realIp)
  app.get('/whoami', ({ realAddress: { address, port, source } }) => ({ realIp: address, port, source }))
  t.teardown(() => app.close())
  const port = await listen(app)
  const client = await lab.client()
  const oracle = client.oracle()
  t.teardown(() => oracle.close())
  return { port, client, oracle }
}

/** Repeats `work` until `run` has ended; gives both. */
async function during (run: Promise<OracleTally>, work: (turn: number) => Promise<void>): Promise<{ tally: OracleTally, turns: number }> {
  let ended = false
  const tally = run.finally(() => { ended = true })
  let turns = 0
  while (!ended) await work(turns++)
  return { tally: await tally, turns }
}

inAttachLab(__filename, {
  async 'replaced under load: no claim is lost, none is wrong' (t, lab) {
    const { port, oracle } = await serve(t, lab)
    lab.attach()
    const { tally, turns } = await during(oracle.run({ port, connections, timeout, source: 'vtoa' }), async (turn) => {
      const list = lists[turn % lists.length] as string
      const { code, stderr } = await run(['attach', '--cgroup', lab.cgroup, '--trusted-peers', list, ...turn % 3 === 0 ? ['--getpeername'] : []])
      if (code !== 0) t.fail(stderr)
    })
    t.comment(`${turns} replacements over ${tally.connections} connections`)
    t.ok(turns > 2)
    t.match(tally, { right: connections, wrong: 0, errors: 0, sources: { vtoa: connections } }, JSON.stringify(tally.samples[0] ?? tally.messages[0]))
    t.equal(lab.attachment()?.counters?.claims, connections)
  },

  async 'a list that is revoked and given back counts from the next connection on' (t, lab) {
    const { port, oracle } = await serve(t, lab)
    for (let turn = 0; turn < 5; turn++) {
      lab.attach({ trustedPeers: ['127.0.0.1'] })
      t.match(await oracle.run({ port, connections: 20, source: 'vtoa' }), { right: 20, errors: 0 }, 'given')
      lab.attach({ trustedPeers: ['10.0.0.1'] })
      t.match(await oracle.run({ port, connections: 20, expect: 'peer', source: 'getpeername' }), { right: 20, errors: 0 }, 'revoked')
    }
  },

  async 'revoked and given back under load: each next connection is answered by the new list' (t, lab) {
    const { port, client, oracle } = await serve(t, lab)
    const asking = client.oracle()
    t.teardown(() => asking.close())
    lab.attach({ trustedPeers: ['127.0.0.1'] })
    const asked = { vtoa: 0, getpeername: 0 }
    const { tally, turns } = await during(oracle.run({ port, connections, timeout, expect: 'stamped-or-peer' }), async (turn) => {
      const [peer, source, expect] = turn % 2 === 0 ? ['10.0.0.1', 'getpeername', 'peer'] as const : ['127.0.0.1', 'vtoa', 'stamped'] as const
      const { code, stderr } = await run(['attach', '--cgroup', lab.cgroup, '--trusted-peers', peer])
      if (code !== 0) t.fail(stderr)
      t.match(await asking.run({ port, connections: 5, expect, source }), { right: 5, wrong: 0, errors: 0 }, peer)
      asked[source] += 5
    })
    t.comment(`${turns} times over ${tally.connections} connections, ${JSON.stringify(tally.sources)}`)
    t.ok(turns > 1)
    t.match(tally, { right: connections, wrong: 0, errors: 0 }, JSON.stringify(tally.samples[0] ?? tally.messages[0]))
    const { vtoa = 0, getpeername = 0 } = tally.sources
    t.match(lab.attachment()?.counters, {
      claims: vtoa + asked.vtoa, strangers: getpeername + asked.getpeername, none: 0, malformed: 0
    }, 'the kernel counts what was answered')
  },

  async 'detached and attached under load: the claim or the peer, and nothing else' (t, lab) {
    const { port, oracle } = await serve(t, lab)
    const { tally, turns } = await during(oracle.run({ port, connections, timeout, expect: 'stamped-or-peer' }), async (turn) => {
      const { code, stderr } = await run(turn % 2 === 0
        ? ['attach', '--cgroup', lab.cgroup, '--trusted-peers', '127.0.0.1']
        : ['detach', '--cgroup', lab.cgroup])
      if (code !== 0) t.fail(stderr)
    })
    t.comment(`${turns} times over ${tally.connections} connections, ${JSON.stringify(tally.sources)}`)
    t.ok(turns > 2)
    t.match(tally, { right: connections, wrong: 0, errors: 0 }, JSON.stringify(tally.samples[0] ?? tally.messages[0]))
  }
}, { timeout: timeout + 60_000 })
