import { constants } from 'node:os'
import t from 'tap'
import { BpfError, type Command } from '../../lib/attach/bpf'
import { cgroupId, ownCgroups } from '../../lib/attach/cgroup'
import { decodeDescription } from '../../lib/attach/config'
import { type Context, explain, kernelBefore } from '../../lib/attach/explain'
import { drawStatus, runAttach } from '../../lib/cli/attach'
import { readArguments } from '../../lib/cli/arguments'
import type { AttachArguments } from '../../lib/cli/attach-arguments'
import { type Bpf, loadLibc, openBpf } from '../../lib/kernel/libc'

type Errno = keyof typeof constants.errno

const root: Context = { release: '6.1.0', root: true, cgroup: '/c' }
const user: Context = { ...root, root: false }
const cases: Array<[command: Command, errno: Errno, context: Context, says: RegExp, log?: string]> = [
  ['map', 'ENOSYS', root, /bpf\(2\) is not available \(ENOSYS\): it needs CONFIG_BPF_SYSCALL, .*seccomp/],
  ['map', 'EPERM', user, /may not load eBPF programs \(EPERM\): run this as root \(sudo\)/],
  ['load', 'EPERM', user, /run this as root/],
  ['btf', 'EPERM', root, /though it is root \(EPERM\): a container without the capabilities/],
  ['map', 'EPERM', { ...root, release: '5.10.0' }, /or lock memory for them \(EPERM\): .*ulimit -l unlimited/],
  ['id', 'EACCES', user, /run this as root/],
  ['map', 'EINVAL', root, /does not support the map x \(EINVAL\): Linux 5\.10 or later/],
  ['map', 'ENOMEM', root, /no memory for x \(ENOMEM\)/],
  ['update', 'EBUSY', root, /x is in use \(EBUSY\): try again/],
  ['load', 'EINVAL', root, /cannot attach programs to cgroups \(EINVAL\): it needs CONFIG_CGROUP_BPF/, ''],
  ['load', 'EACCES', root, /verifier rejects the program x \(EACCES, Linux 6\.1\.0\): .*--verbose/, 'R1 invalid'],
  ['load', 'EINVAL', root, /verifier rejects/, 'unknown func'],
  ['link', 'EPERM', root, /\/c accepts no more programs \(EPERM\): .*bpftool cgroup tree/],
  ['link', 'EPERM', { ...root, exclusive: 'eBPF program 7 of /a' }, /eBPF program 7 of \/a forbids other programs in \/c \(EPERM\): detach it/],
  ['link', 'E2BIG', root, /\/c already has 64 programs of one kind \(E2BIG\)/],
  ['link', 'ENODEV', root, /\/c has been removed \(ENODEV\)/],
  ['link', 'ENOENT', root, /\/c has been removed/],
  ['link', 'EBADF', root, /\/c has been removed/],
  ['link', 'EINVAL', root, /CONFIG_CGROUP_BPF/],
  ['link', 'ENOMEM', { release: '6.1.0', root: true }, /no memory for x/],
  ['pin', 'EACCES', root, /x may not be used \(EACCES\): a security module, or the mount options/],
  ['get', 'EPERM', user, /x may not be used \(EPERM\): run this as root/],
  ['pin', 'ENOSPC', root, /x cannot be created \(ENOSPC\)/],
  ['pin', 'ENOMEM', root, /x cannot be created \(ENOMEM\)/],
  ['pin', 'EEXIST', root, /failed with EEXIST for x \(pin, Linux 6\.1\.0\)/],
  ['freeze', 'EIO', root, /failed with EIO for x/]
]

t.test('every errno is a sentence with a cure', async (t) => {
  for (const [command, errno, context, says, log] of cases) {
    const sentence = explain(new BpfError(command, constants.errno[errno], 'x', log), context)
    t.match(sentence, says, `${command} ${errno}`)
    t.match(sentence, /^[^\n]+\.$/)
  }
})

t.test('kernels by their number', async (t) => {
  for (const [release, before] of [['5.9.16', true], ['5.10.0-28-amd64', false], ['4.19', true], ['6.0', false], ['10.1', false]] as const) {
    t.equal(kernelBefore(release, 5, 10), before, release)
  }
})

t.test('what another version wrote', async (t) => {
  t.equal(decodeDescription(Buffer.alloc(100)), undefined)
  const text = drawStatus([{ id: '7', state: 'gone', description: undefined, counters: { claims: 1, none: 2, malformed: 3, strangers: 4, unstored: 5 }, programs: {} }])
  t.match(text, /^Unknown cgroup\n {2}id {13}7\n/)
  t.match(text, '1 with TOA, 2 without, 3 malformed, 4 from strangers, 5 lost for lack of memory')
  t.notMatch(text, 'programs')
})

t.test('the cgroups of this process', { skip: process.platform !== 'linux' }, async (t) => {
  for (const { path, id } of ownCgroups()) t.equal(cgroupId(path), id)
  t.equal(cgroupId('/proc'), undefined)
  t.equal(cgroupId('/nowhere'), undefined)
})

function run (args: string[], bpf: Bpf | string) {
  const said: string[] = []
  const noted: string[] = []
  const code = runAttach(readArguments(args) as AttachArguments, {
    bpf, version: '1.2.3', say: (text) => { said.push(text) }, note: (text) => { noted.push(text) }
  })
  return { code, said, noted }
}

t.test('without bpf(2)', async (t) => {
  t.throws(() => run(['status'], 'koffi cannot be loaded'), { message: 'status cannot work here: koffi cannot be loaded.' })
})

t.test('on a machine that the programs are not made for', { skip: process.platform !== 'linux' }, async (t) => {
  loadLibc()
  t.intercept(process, 'arch', { value: 's390x' })
  t.equal(openBpf(), 'the eBPF programs do not support s390x')
})
