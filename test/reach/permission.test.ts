import { execFile } from 'node:child_process'
import path from 'node:path'
import { promisify } from 'node:util'
import t from 'tap'
import type { FastifyRealIpOptions } from 'fastify-real-ip'
import type { Noticed } from '../package/serve-once'

// Without --allow-addons it is in test/package/degraded.test.ts.

const linux = process.platform === 'linux'
const allowed = process.allowedNodeEnvironmentFlags
const flags = [
  allowed.has('--permission') ? '--permission' : '--experimental-permission',
  '--allow-addons',
  '--allow-fs-read=*',
  ...allowed.has('--allow-net') ? ['--allow-net'] : []
]

async function run (options: FastifyRealIpOptions): Promise<Noticed> {
  // tap's own preload writes files and starts a thread, which the permission model forbids.
  const command = ['-u', 'NODE_OPTIONS', process.execPath, ...flags, path.join(__dirname, '../package/serve-once.js'), JSON.stringify(options)]
  const { stdout } = await promisify(execFile)('env', command)
  return JSON.parse(stdout)
}

t.test(flags.join(' '), { skip: !linux && 'not Linux' }, async (t) => {
  t.test('requests have the address from the kernel', async (t) => {
    const { warnings, answers } = await run({ require: true })
    t.match(warnings, [/trustedPeers/])
    t.equal(warnings.length, 1, 'which is not that koffi cannot be loaded')
    t.equal(answers.length, 2)
    for (const answer of answers) t.match(answer, { address: '127.0.0.1', source: 'getpeername' })
  })

  t.test('a list of trustedPeers knows the sender', async (t) => {
    const { warnings, answers } = await run({ trustedPeers: ['127.0.0.0/8'] })
    t.same(warnings, [])
    t.equal(answers.length, 2)
    for (const answer of answers) {
      t.match(answer, { address: '127.0.0.1', trust: 'trusted', transportPeer: { address: '127.0.0.1', port: answer.port } })
    }
  })
})
