import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { BpfCommands } from '../../lib/attach/bpf'
import { kinds } from '../../lib/attach/pins'
import { attachWith, inAttachLab, openForTest, pinned, works } from './attach-lab'
import { fails, faulty } from './faulty'

inAttachLab(__filename, {
  async 'killed before any of its system calls: the next one repairs it' (t, attachLab) {
    const { attach, attachment, bpf, cgroup, detach } = attachLab
    const kill = (command: string, call: number, ...flags: string[]) =>
      spawnSync(process.execPath, [join(__dirname, 'killed.js'), command, cgroup, String(call), ...flags], { stdio: 'inherit' })
    let killed = 0
    for (const [what, before] of [['nothing', () => {}], ['an attachment', () => attach({ getpeername: true })]] as const) {
      for (let call = 1; ; call++) {
        before()
        const { signal, status } = kill('attach', call, ...call % 2 === 0 ? ['--getpeername'] : [])
        if (signal === null) {
          t.equal(status, 0)
          break
        }
        killed++
        if (what === 'an attachment') await works(t, attachLab, `${what}, killed before call ${call}`)
        attach({ getpeername: call % 3 === 0 })
        t.match(attachment(), { state: 'attached', description: { version: 'test', getpeername: call % 3 === 0 } })
        await works(t, attachLab, `${what}, killed before call ${call}, then attached`)
        detach()
        t.same(pinned(), [])
      }
      detach()
    }
    t.comment(`attach was killed ${killed} times`)
    t.ok(killed > 40)

    for (let call = 1; ; call++) {
      attach({ getpeername: true })
      const { signal } = kill('detach', call)
      if (signal === null) break
      if (call % 2 === 0) attach()
      detach()
      t.same(pinned(), [], `detach killed before call ${call}`)
    }
    t.equal(new BpfCommands(bpf).query(openForTest(t, cgroup), kinds.sockops.attachType).ids.length, 0)
  },

  async 'whatever call fails: a sentence, and all is as it was' (t, attachLab) {
    const { attach, attachment, bpf, cgroup, detach } = attachLab
    const request = { getpeername: true }
    for (let call = 1; ; call++) {
      const broken = faulty(bpf, call, fails('ENOMEM'))
      try {
        attachWith(broken, cgroup, request)
        if (broken.calls() < call) break
      } catch (error) {
        t.match((error as Error).message, /^.+\(.*(ENOMEM|errno 12).*\).*\.$/, `call ${call}: ${(error as Error).message}`)
        t.same(pinned(), [], 'nothing is left')
        continue
      }
      // What it can do without.
      detach()
    }
    detach()

    attach({ trustedPeers: ['127.0.0.1'] })
    const before = attachment()
    for (let call = 1; ; call++) {
      const broken = faulty(bpf, call, fails('ENOMEM'))
      try {
        attachWith(broken, cgroup, request)
        if (broken.calls() < call) break
        attach({ trustedPeers: ['127.0.0.1'] })
      } catch {
        const { programs, state, description } = attachment() ?? {}
        t.equal(state, 'attached')
        t.same(Object.keys(programs ?? {}), ['sockops', 'getsockopt'])
        t.same(description?.trustedPeers, before?.description?.trustedPeers, `call ${call}: the programs are the old ones`)
      }
    }
    await works(t, attachLab, 'in the end')
  }
})
