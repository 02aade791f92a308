import { spawnSync } from 'node:child_process'
import { chmodSync, closeSync, mkdirSync, openSync, readdirSync, rmdirSync, rmSync, symlinkSync, unlinkSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'
import { BpfCommands } from '../../lib/attach/bpf'
import { ownCgroups } from '../../lib/attach/cgroup'
import { documentFormats, setRetval } from '../../lib/attach/config'
import { kinds, pinsOf } from '../../lib/attach/pins'
import { status as statusOf } from '../../lib/attach/status'
import { readArguments } from '../../lib/cli/arguments'
import { runAttach } from '../../lib/cli/attach'
import type { AttachArguments } from '../../lib/cli/attach-arguments'
import type { Finding, Report } from '../../lib/cli/doctor'
import type { Seen } from '../../lib/cli/sighting'
import type { Bpf } from '../../lib/kernel/libc'
import { open, run, startWatch, type Watch } from '../cli/cli'
import { derivedAddress, type StampingClient } from '../lab/lab'
import {
  ask1348, attachWith, bpffs, connect, idOf, inAttachLab, openForTest, pinned, thrownBy, works
} from './attach-lab'
import { fails, faulty } from './faulty'

const BPF_PROG_LOAD = 5
const BPF_OBJ_GET = 7
const BPF_PROG_ATTACH = 8
const BPF_PROG_DETACH = 9
/** `r0 = 1; exit` */
const PASS = Buffer.from('b7000000010000009500000000000000', 'hex')

const any = ['--trusted-peers', 'any']

/** A program of somebody else, of getsockopt. */
function loadForeign (t: Test, bpf: Bpf): number {
  const { fd } = new BpfCommands(bpf).load({ ...kinds.getsockopt, name: 'foreign', instructions: PASS })
  t.teardown(() => { closeSync(fd) })
  return fd
}

/** Attached as it was done before links. */
function attachForeign (t: Test, bpf: Bpf, cgroup: string, flags: number): void {
  const program = loadForeign(t, bpf)
  const fd = openSync(cgroup, 'r')
  const attr = (flags: number) => new Uint8Array(Uint32Array.of(fd, program, kinds.getsockopt.attachType, flags).buffer)
  t.equal(bpf.bpf(BPF_PROG_ATTACH, attr(flags)), 0)
  t.teardown(() => {
    if (bpf.bpf(BPF_PROG_DETACH, attr(0)) !== 0) throw new Error('the foreign program is still attached')
    closeSync(fd)
  })
}

/** What the doctor finds, in the cgroup that this process is in. */
async function examine (before: readonly string[] = []): Promise<Report & { find: (name: string) => Finding | undefined }> {
  const report: Report = JSON.parse((await run(['doctor', '--json'], { before })).stdout)
  return { ...report, find: (name) => report.findings.find((finding) => finding.name === name) }
}

/** What `watch` says of a connection of `client`. */
async function seenBy (t: Test, watch: Watch, client: StampingClient): Promise<{ seen: Seen, port: number }> {
  client.enter()
  const { localPort } = await open(t, watch.port)
  return { seen: await watch.seen(), port: localPort as number }
}

inAttachLab(__filename, {
  async 'watch: what is read, and what to compare where nothing is' (t, { attach, lab }) {
    attach()
    const watch = await startWatch(t, ['--json', '--host', '127.0.0.1'])
    const client = await lab.client()
    const unread = (format: RegExp) => new RegExp(`^TOA ${format.source} was sent, but getsockopt 1348 returned nothing\\. ` +
      'vtoa or attach answers it: .* --toa and --trusted-peers .*fastify-real-ip status')

    client.set({ derive: 'v6' })
    const claimed = await seenBy(t, watch, client)
    t.match(claimed.seen.ack?.find(({ name }) => name === 'toa'), { kind: 253, length: 20 })
    t.match(claimed.seen.decision, { address: derivedAddress(claimed.port, 'v6'), source: 'vtoa' }, 'on an IPv4 listener too')
    t.notMatch(claimed.seen.notes.join(), 'was sent')

    attach({ formats: documentFormats.slice(0, 1) })
    const { seen: foreign } = await seenBy(t, watch, client)
    t.match(foreign.decision, { address: '127.0.0.1' })
    t.match(foreign.notes[0], unread(/253\/20/), 'a format that is not in --toa')

    client.set({})
    attach({ trustedPeers: ['10.0.0.1'] })
    const { seen: stranger } = await seenBy(t, watch, client)
    t.match(stranger.decision, { address: '127.0.0.1' })
    t.match(stranger.notes[0], unread(/254\/8/), 'a peer that is not in --trusted-peers')
  },

  async 'the doctor tells whether this cgroup is attached' (t, { attach, cgroup, detach, newCgroup }) {
    attach({ cgroup: newCgroup(t) })
    const without = await examine()
    t.same([without.works, without.sources], [false, []])
    t.match(without.find('attach'), { state: 'bad', message: `not attached: this process is in the cgroup ${cgroup};` })
    t.match(without.find('getsockopt 1348'), { state: 'bad', fix: 'sudo fastify-real-ip attach --cgroup' })

    attach()
    const attached = await examine()
    t.same([attached.works, attached.sources], [true, ['vtoa']])
    t.match(attached.find('attach'), { state: 'good', message: `attached to ${cgroup}: ` })
    t.match(attached.find('getsockopt 1348'), { state: 'good', message: /^vtoa or attach: it answers \((ESRCH|EPERM) / })

    const ordinary = await examine(['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups'])
    t.same(ordinary.sources, ['vtoa'])
    t.match(ordinary.find('attach'), { state: 'unknown', message: `this process is in the cgroup ${cgroup};`, fix: 'run doctor as root' })

    unlinkSync(join(pinsOf(bpffs, idOf(cgroup)), 'sockops'))
    t.match((await examine()).find('attach'), { state: 'bad', message: `incomplete at ${cgroup}`, fix: `attach --cgroup ${cgroup} ` })
    attach()
    detach()
    t.match((await examine()).find('attach'), { state: 'bad' })
  },

  async 'attach, status, attach again, detach: by the program' (t, attachLab) {
    const { cgroup, newCgroup, lab } = attachLab
    t.same(await run(['status']), { code: 1, stdout: 'Nothing is attached.\n', stderr: '' })
    t.same(JSON.parse((await run(['status', '--json'])).stdout).attachments, [])
    const id = idOf(cgroup)

    const first = await run(['attach', '--cgroup', cgroup, '--trusted-peers', '127.0.0.0/8, ::1'])
    t.equal(first.code, 0)
    t.equal(first.stderr, '')
    t.match(first.stdout, `Attached to ${cgroup} (id ${id}).`)
    t.match(first.stdout, '  trusted peers  127.0.0.0/8, ::1\n  TOA            254/8/IPv4, 253/20/IPv6\n  interface      getsockopt 1348\n')
    await works(t, attachLab, 'attached')

    const client = await lab.client()
    ask1348(await connect(t, client, null))
    await connect(t, client, { length: 7 })
    const stranger = await run(['attach', '--cgroup', cgroup, '--trusted-peers', '10.0.0.0/8', '--toa', '254/8/IPv4', '--json', '--getpeername'])
    t.match(JSON.parse(stranger.stdout), { cgroup, id, replaced: true })
    t.notOk('log' in JSON.parse(stranger.stdout))
    t.equal(ask1348(await connect(t, client, {})), 'ESRCH')

    const { code, stdout } = await run(['status', '--json'])
    t.equal(code, 0)
    const { version } = require('fastify-real-ip/package.json')
    t.match(JSON.parse(stdout), {
      version,
      attachments: [{
        id,
        state: 'attached',
        description: { version, cgroup, trustedPeers: ['10.0.0.0/8'], formats: [{ kind: 254, length: 8, family: 'IPv4' }], getpeername: true },
        counters: { claims: 1, none: 1, malformed: 1, strangers: 1, unstored: 0 },
        programs: { sockops: Number, getsockopt: Number, getpeername4: Number, getpeername6: Number }
      }]
    })
    const text = await run(['status'])
    t.match(text.stdout, `${cgroup}\n  id             ${id}\n  state          attached\n  trusted peers  10.0.0.0/8\n  TOA            254/8/IPv4\n`)
    t.match(text.stdout, '  interface      getsockopt 1348 and getpeername\n  connections    1 with TOA, 1 without, 1 malformed, 1 from strangers\n')
    t.match(text.stdout, /\n {2}programs {7}sockops \d+, getsockopt \d+, getpeername4 \d+, getpeername6 \d+\n {2}attached {7}\d{4}-/)

    // Another one beside it, with a long list.
    const beside = newCgroup(t)
    const list = Array.from({ length: 1000 }, (_, i) => `10.1.${i >> 8}.${i & 255}`)
    t.equal((await run(['attach', '--cgroup', beside, '--trusted-peers', list.join()])).code, 0)
    t.match((await run(['status'])).stdout, /trusted peers {2}10\.1\.0\.0, .*, 10\.1\.0\.9, and 990 more\n/)
    const gone = idOf(beside)
    rmdirSync(beside)
    t.match((await run(['status'])).stdout, `${beside}\n  id             ${gone}\n  state          its cgroup was removed; detach --id removes the rest\n`)
    t.equal((await run(['status'])).code, 1)
    t.match(await run(['detach', '--id', gone]), { code: 0, stdout: `Detached from the cgroup ${gone}.\n` })

    t.match(await run(['detach', '--cgroup', cgroup]), { code: 0, stdout: `Detached from ${cgroup}.\n` })
    t.equal(ask1348(await connect(t, client, {})), 'ENOPROTOOPT')
    t.same(pinned(), [])
    const again = await run(['detach', '--cgroup', cgroup])
    t.match(again, { code: 1, stdout: '', stderr: `fastify-real-ip: Nothing is attached to ${cgroup}; status lists all attachments.\n` })
    t.match(await run(['detach', '--id', '1']), { code: 1, stderr: /Nothing is attached to the cgroup 1;/ })

    const verbose = await run(['attach', '--cgroup', cgroup, ...any, '--verbose', '--getpeername'])
    for (const name of ['toa_sockops', 'toa_getsockopt', 'toa_peername4', 'toa_peername6']) t.match(verbose.stderr, `${name}:\n`)
    t.match(verbose.stderr, /^processed \d+ insns/m)
    t.match(verbose.stdout, 'any: every client can forge')
    t.match(JSON.parse((await run(['detach', '--cgroup', cgroup, '--json'])).stdout), { detached: { cgroup } })
  },

  async 'all formats at once pass the verifier' (t, { attach, status }) {
    attach({
      formats: Array.from({ length: 8 }, (_, i) => i % 2 === 0 ? { kind: 200 + i, length: 8, family: 'IPv4' } : { kind: 200 + i, length: 20, family: 'IPv6' }),
      trustedPeers: ['10.0.0.0/8']
    })
    t.equal(status()[0]?.description?.formats.length, 8)
  },

  async 'claims outlast a replacement; without their pins they are lost, and it works again' (t, attachLab) {
    const { attach, attachment, cgroup, lab } = attachLab
    attach()
    const client = await lab.client()
    const socket = await connect(t, client, { address: '203.0.113.7', port: 1 })
    attach({ trustedPeers: [] })
    t.equal(ask1348(socket), '203.0.113.7 1')
    for (const name of ['claims', 'counters', 'getsockopt']) unlinkSync(join(pinsOf(bpffs, idOf(cgroup)), name))
    t.match(attachment(), { state: 'incomplete', counters: undefined })
    t.match((await run(['status'])).stdout, 'incomplete: an attach or detach was interrupted; repeat it')
    attach()
    t.match(attachment(), { state: 'attached', counters: { claims: 0 } })
    t.equal(ask1348(socket), 'ESRCH')
    await works(t, attachLab, 'and for new connections')
  },

  async 'a program that somebody else has detached' (t, attachLab) {
    const { attach, attachment, bpf, cgroup } = attachLab
    attach()
    const commands = new BpfCommands(bpf)
    const link = commands.open(join(pinsOf(bpffs, idOf(cgroup)), 'sockops'))
    commands.detach(link)
    closeSync(link)
    t.equal(attachment()?.state, 'detached')
    t.match(await run(['status']), { code: 1, stdout: /detached by another program; repeat attach/ })
    attach()
    t.equal(attachment()?.state, 'attached')
    await works(t, attachLab, 'attached again')
  },

  async 'many at once' (t, attachLab) {
    const { cgroup, attachment, attach } = attachLab
    const lists = Array.from({ length: 8 }, (_, i) => `10.0.0.${i}`)
    const all = await Promise.all(lists.map((list, i) =>
      run(i % 3 === 2 ? ['detach', '--cgroup', cgroup] : ['attach', '--cgroup', cgroup, '--trusted-peers', `${list},127.0.0.1`])))
    for (const { code, stderr } of all) if (code !== 0) t.match(stderr, /Nothing is attached/)
    if (attachment() !== undefined) {
      t.equal(attachment()?.state, 'attached')
      await works(t, attachLab, 'the claims are those that the programs use')
    }
    attach()
    await works(t, attachLab, 'and after one more')
    t.equal(pinned().length, 1)
  },

  async 'foreign programs that forbid others' (t, { bpf, newCgroup }) {
    const parent = newCgroup(t)
    const child = newCgroup(t, parent)
    await t.test('exclusive, in the same cgroup and below it', async (t) => {
      attachForeign(t, bpf, parent, 0)
      for (const cgroup of [parent, child]) {
        const { code, stderr } = await run(['attach', '--cgroup', cgroup, ...any])
        t.equal(code, 1)
        t.match(stderr, new RegExp(`^fastify-real-ip: eBPF program \\d+ of ${parent} forbids other programs in ${cgroup} \\(EPERM\\): detach it, .*\\.\\n$`))
      }
      t.same(pinned(), [])
    })
    await t.test('one that may be overridden', async (t) => {
      attachForeign(t, bpf, parent, 1)
      t.match(await run(['attach', '--cgroup', parent, ...any]), { code: 1, stderr: /eBPF program \d+ of .* forbids other programs/ })
      t.match(await run(['attach', '--cgroup', child, ...any]), { code: 0 })
      t.equal((await run(['detach', '--cgroup', child])).code, 0)
    })
    await t.test('64 of them', async (t) => {
      const commands = new BpfCommands(bpf)
      const program = loadForeign(t, bpf)
      const fd = openForTest(t, parent)
      const links = Array.from({ length: 64 }, () => commands.link(program, fd, kinds.getsockopt.attachType))
      t.match(await run(['attach', '--cgroup', parent, ...any]), { code: 1, stderr: /already has 64 programs of one kind \(E2BIG\)/ })
      t.same(pinned(), [])
      commands.detach(links[0] as number)
      t.match(await run(['attach', '--cgroup', parent, ...any]), { code: 0 })
      for (const link of links) closeSync(link)
      t.match(await run(['detach', '--cgroup', parent]), { code: 0 })
    })
  },

  async 'kernels by their number, and without an errno of a program\'s own' (t, attachLab) {
    const { bpf, cgroup, detach, lab } = attachLab
    t.match(thrownBy(() => attachWith(bpf, cgroup, {}, '5.9.16')).message, 'attach needs Linux 5.10 or later, this is 5.9.16.')
    const tried: Uint8Array[] = []
    let raised = 0
    const old: Bpf = {
      ...bpf,
      bpf (command, attr, pointers = []) {
        const [instructions] = pointers
        if (command !== BPF_PROG_LOAD || !setRetval.equals(instructions?.[1] as Uint8Array)) return bpf.bpf(command, attr, pointers)
        tried.push(attr)
        return -constants.errno.EINVAL
      },
      unlimitLockedMemory () {
        raised++
        return bpf.unlimitLockedMemory()
      }
    }
    t.match(thrownBy(() => attachWith({
      ...old,
      bpf: (...given) => {
        const before = tried.length
        const result = old.bpf(...given)
        return tried.length === before ? result : -constants.errno.ENOMEM
      }
    }, cgroup)).message, /ENOMEM/)
    t.same(pinned(), [])
    attachWith(old, cgroup, {}, '5.10.0-28-amd64')
    t.equal(raised, 1)
    t.ok(tried.length > 0)
    await works(t, attachLab, 'claims are answered')
    const client = await lab.client()
    // Linux 5.10 to 5.17 make EPERM of what the program returns; this one keeps the errno that was there.
    t.not(ask1348(await connect(t, client, null)), 'ESRCH')
    detach()
    attachWith(bpf, cgroup, {}, '5.11.0')
    t.equal(ask1348(await connect(t, client, null)), 'ESRCH')
  },

  async 'the root of all cgroups' (t, { cgroup }) {
    // Nothing is attached: that would be to this whole machine. Every call gives a file descriptor, as most of bpf(2) do.
    const opened: number[] = []
    const bpf: Bpf = {
      bpf: (command, _attr, pointers = []) => {
        const path = pointers[0]?.[1]
        if (command === BPF_OBJ_GET && /(getsockopt|sockops|getpeername.|claims|counters)\0$/.test(String(Buffer.from(path ?? [])))) return -constants.errno.ENOENT
        const fd = openSync('/dev/null', 'r')
        opened.push(fd)
        return fd
      },
      flock: () => 0,
      unlimitLockedMemory: () => 0
    }
    const root = ownCgroups().at(-1) as { path: string, id: bigint }
    t.ok(cgroup.startsWith(root.path))
    const noted: string[] = []
    const said: string[] = []
    const request = readArguments(['attach', '--cgroup', root.path, '--trusted-peers', 'any']) as AttachArguments
    const attachToRoot = () => runAttach(request, { bpf, version: '1', say: (text) => { said.push(text) }, note: (text) => { noted.push(text) } })
    if (root.id !== 1n) {
      t.match(thrownBy(attachToRoot).message, "is the root of a container's own cgroups")
      return
    }
    t.equal(attachToRoot(), 0)
    t.match(said[0], `Attached to ${root.path} (id 1).`)
    t.match(noted, [/^At the root it slows down every process of this host: prefer a slice/])
    rmdirSync(pinsOf(bpffs, '1'))
  },

  async 'what the verifier refuses' (t, { bpf, cgroup }) {
    const broken: Bpf = {
      ...bpf,
      bpf (command, attr, pointers = []) {
        const [first, ...rest] = pointers
        if (command !== BPF_PROG_LOAD || first === undefined || setRetval.equals(first[1])) return bpf.bpf(command, attr, pointers)
        // Falls off its end.
        return bpf.bpf(command, attr, [[first[0], Buffer.alloc(first[1].length, Buffer.from('b700000001000000', 'hex'))], ...rest])
      }
    }
    const noted: string[] = []
    for (const verbose of [[], ['--verbose']]) {
      const request = readArguments(['attach', '--cgroup', cgroup, ...any, ...verbose]) as AttachArguments
      const { message } = thrownBy(() => runAttach(request, { bpf: broken, version: '1', say: () => {}, note: (text) => { noted.push(text) } }))
      t.match(message, /^The kernel's verifier rejects the program toa_sockops \(EINVAL, Linux .*\): please report it with its log, which --verbose prints\.$/)
    }
    t.equal(noted.length, 1)
    t.match(noted[0], /last insn is not an exit or jmp/)
    t.same(pinned(), [])
  },

  async 'a cgroup that is removed meanwhile' (t, { bpf, newCgroup }) {
    const cgroup = newCgroup(t)
    const removing = faulty(bpf, 0, () => 0)
    const { message } = thrownBy(() => attachWith({
      ...removing,
      flock (fd, operation) {
        rmdirSync(cgroup)
        return bpf.flock(fd, operation)
      }
    }, cgroup))
    t.match(message, /has been removed \(E\w+\): attach to the slice above it/)
    t.same(pinned(), [])
  },

  async 'pins of another version, or of somebody else' (t, { attach, attachment, bpf, cgroup, detach }) {
    const folder = pinsOf(bpffs, idOf(cgroup))
    mkdirSync(pinsOf(bpffs), { recursive: true, mode: 0o700 })
    mkdirSync(folder, { mode: 0o700 })
    const commands = new BpfCommands(bpf)
    const foreign = commands.createMap('claims', { type: 2, keySize: 4, valueSize: 24, maxEntries: 1, flags: 0 })
    commands.pin(foreign, join(folder, 'claims'))
    closeSync(foreign)
    t.match(thrownBy(() => attach()).message, /claims was created by another version of this program: detach first/)
    t.equal((await run(['status'])).code, 1)
    t.match((await run(['detach', '--cgroup', cgroup])), { code: 0 })

    attach({ getpeername: true })
    for (const name of ['sockops', 'getsockopt', 'getpeername6', 'counters']) unlinkSync(join(folder, name))
    const counters = commands.createMap('counters', { type: 2, keySize: 4, valueSize: 8, maxEntries: 4, flags: 0 })
    commands.pin(counters, join(folder, 'counters'))
    closeSync(counters)
    t.match(attachment(), { state: 'incomplete', description: undefined, counters: undefined, programs: { getpeername4: Number } })
    const { message } = thrownBy(() => statusOf(faulty(bpf, 2, fails('EIO')), bpffs))
    t.match(message, /^bpf\(2\) failed with EIO for .*\/getsockopt \(get, Linux .*\)\.$/)
    detach()
    mkdirSync(folder, { mode: 0o777 })
    spawnSync('chmod', ['777', folder])
    t.match(thrownBy(() => attach()).message, /belongs to another user, or others may write to it: remove it\./)
    rmdirSync(folder)
  },

  async 'detach deletes nothing through what somebody else made' (t, { cgroup, detach, status }) {
    const victim = t.testdir({ precious: 'file' })
    const folder = pinsOf(bpffs, idOf(cgroup))
    rmSync(pinsOf(bpffs), { recursive: true, force: true })
    chmodSync(bpffs, 0o1777)
    process.seteuid!(65534)
    try {
      mkdirSync(pinsOf(bpffs), { mode: 0o755 })
      symlinkSync(victim, folder)
    } finally {
      process.seteuid!(0)
    }
    for (const work of [() => detach(), () => status()]) {
      t.match(thrownBy(work).message, /fastify-real-ip belongs to another user, or others may write to it: remove it\./)
    }
    t.same(readdirSync(victim), ['precious'])
    rmSync(pinsOf(bpffs), { recursive: true })
    // Nor through a link in the plugin's own folder.
    mkdirSync(pinsOf(bpffs), { mode: 0o700 })
    symlinkSync(victim, folder)
    t.match(thrownBy(() => detach()).message, `${folder} belongs to another user`)
    t.same(readdirSync(victim), ['precious'])
    unlinkSync(folder)
  },

  async 'without privilege, and with just enough' (t, { attach, cgroup, detach, newCgroup, status }) {
    const nobody = ['env', '-i', 'setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups']
    const args = ['attach', '--cgroup', cgroup, ...any]
    const refused = await run(args, { before: [...nobody, '--bounding-set', '-all'] })
    t.equal(refused.code, 1)
    t.match(refused.stderr, /^fastify-real-ip: .*: run this as root.*\.\n$/)
    const root = await run(args, { before: ['setpriv', '--bounding-set', '-all'] })
    t.equal(root.code, 1)
    t.match(root.stderr, /^fastify-real-ip: .*\(EPERM\): a container without the capabilities, or a security module\./)
    t.same(pinned(), [])

    // The same in this process.
    const closed = newCgroup(t)
    chmodSync(closed, 0o700)
    const asNobody = (work: () => unknown) => {
      process.seteuid!(65534)
      try {
        return thrownBy(work).message
      } finally {
        process.seteuid!(0)
      }
    }
    rmdirSync(pinsOf(bpffs))
    chmodSync(bpffs, 0o755)
    t.match(asNobody(() => attach()), /fastify-real-ip cannot be created \(EACCES\): run this as root\./)
    chmodSync(bpffs, 0o1777)
    t.match(asNobody(() => attach({ cgroup: closed })), `${closed} cannot be read (EACCES): run this as root.`)
    attach()
    t.match(asNobody(() => attach()), /belongs to another user, or others may write to it: run this as root\./)
    t.match(asNobody(() => status()), /fastify-real-ip cannot be read \(EACCES\): run this as root\./)
    t.match(asNobody(() => detach()), /cannot be read \(EACCES\): run this as root\./)
    detach()

    // What is pinned by root is root's.
    const other = newCgroup(t)
    t.equal((await run(['attach', '--cgroup', other, ...any])).code, 0)
    for (const command of [['status'], ['detach', '--cgroup', other], ['attach', '--cgroup', other, ...any]]) {
      t.match(await run(command, { before: [...nobody, '--bounding-set', '-all'] }), { code: 1, stderr: /^fastify-real-ip: .*\.\n$/ }, `${command[0]}`)
    }
    t.equal((await run(['detach', '--cgroup', other])).code, 0)
    rmdirSync(pinsOf(bpffs))

    const capabilities = '+bpf,+net_admin,+perfmon'
    const enough = [...nobody, '--inh-caps', capabilities, '--ambient-caps', capabilities]
    t.match(await run(args, { before: enough }), { code: 0, stderr: '' })
    t.match((await run([...args, '--json'], { before: enough })).stdout, '"replaced":true')
    t.match(await run(['detach', '--cgroup', cgroup], { before: enough }), { code: 0, stderr: '' })
    rmdirSync(pinsOf(bpffs))
  },

  async "a container's own root of cgroups" (t) {
    const script = 'mount -t tmpfs none /mnt && mkdir /mnt/cgroup && mount -t cgroup2 none /mnt/cgroup && exec "$@"'
    const before = ['unshare', '--mount', '--cgroup', '--propagation', 'private', 'sh', '-c', script, 'sh']
    t.match(await run(['attach', '--cgroup', '/mnt/cgroup', ...any], { before }), {
      code: 1, stderr: /^fastify-real-ip: \/mnt\/cgroup is the root of a container's own cgroups, not the host's: run this on the host, .*\.\n$/
    })
    const none = ['unshare', '--mount', '--propagation', 'private', 'sh', '-c', 'mount -t tmpfs none /sys && exec "$@"', 'sh']
    t.match(await run(['attach', '--cgroup', '/sys/fs/cgroup/a.slice', ...any], { before: none }), {
      code: 1, stderr: /There is no cgroup .* \(ENOENT\)\. cgroup v2 is not mounted here: mount -t cgroup2 .*nsenter/
    })
  },

  async 'what is not there' (t, { cgroup }) {
    const cases: Array<[args: string[], says: RegExp]> = [
      [['--cgroup', `${cgroup}/nowhere`], /There is no cgroup .*\/nowhere \(ENOENT\)\. cgroup v2 is mounted at /],
      [['--cgroup', '/proc'], /\/proc is not a cgroup v2 directory\. cgroup v2 is mounted at /],
      [['--cgroup', `${cgroup}/cgroup.procs`], /is a file: use the cgroup's directory, /],
      [['--cgroup', cgroup, '--bpffs', '/proc'], /\/proc is not a BPF file system, .*: mount -t bpf bpf \/proc; or set another one with --bpffs\./],
      [['--cgroup', cgroup, '--bpffs', '/nowhere'], /\/nowhere is not a BPF file system/]
    ]
    for (const [args, says] of cases) {
      const { code, stdout, stderr } = await run(['attach', ...args, ...any])
      t.same([code, stdout], [1, ''])
      t.match(stderr, says)
      t.match(stderr, /^fastify-real-ip: [^\n]+\.\n$/)
    }
    t.match(await run(['status'], { flags: ['--no-addons'] }), { code: 1, stderr: /status cannot work here: koffi cannot be loaded/ })
    t.match(await run(['status', '--bpffs', '/proc']), { code: 1, stderr: /\/proc is not a BPF file system/ })
    t.match(await run(['detach', '--id', '7', '--bpffs', '/proc']), { code: 1, stderr: /\/proc is not a BPF file system/ })
  }
})
