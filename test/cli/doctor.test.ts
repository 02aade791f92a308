import { spawnSync } from 'node:child_process'
import {
  cpSync, mkdirSync, mkdtempSync, readdirSync, realpathSync, rmSync, symlinkSync, truncateSync, writeFileSync
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { diagnose, drawReport, type Finding, type Report } from '../../lib/cli/doctor'
import type { Attachment } from '../../lib/attach/status'
import type { Kernel, Machine } from '../../lib/cli/machine'
import { inLab } from '../lab/in-lab'
import { run, type Printed } from './cli'

const without = 'ENOPROTOOPT'
const plain: Kernel = {
  optnames: { 1345: without, 1346: without, 1347: without, 1348: without, 4096: without },
  saveSyn: undefined,
  savedSyn: true,
  diag: true,
  auto: 'sources getpeername'
}
const debian: Machine = {
  platform: 'linux',
  arch: 'x64',
  node: '20.20.2',
  release: '6.1.0-28-amd64',
  koffi: { state: 'works', message: '' },
  modules: { vtoa: false, toa: false },
  vtoaStats: undefined,
  toaStats: undefined,
  syncookies: '1',
  fastopen: '1',
  hostNetwork: true,
  hostProcesses: true,
  cgroups: [{ path: '/sys/fs/cgroup/a.slice/b.scope', id: '77' }, { path: '/sys/fs/cgroup/a.slice', id: '7' }, { path: '/sys/fs/cgroup', id: '1' }],
  attachments: [],
  kernel: plain
}
const alinux: Machine = { ...debian, release: '5.10.134-17.2.al8.x86_64' }
const vtoa: Kernel = { ...plain, optnames: { 1345: 'ESRCH', 1346: without, 1347: 'ESRCH', 1348: 'ESRCH', 4096: without } }

const REINSTALL = 'rm -rf node_modules/koffi node_modules/@koromix && npm install'
const attachedTo = (id: string, state: Attachment['state'] = 'attached'): Attachment =>
  ({ id, state, description: undefined, counters: undefined, programs: {} })
const find = ({ findings }: Report, name: string) => findings.find((finding) => finding.name === name) as Finding

t.test('which source works, and what the doctor concludes', async (t) => {
  const cases: Array<[what: string, machine: Machine, sources: string[], message: RegExp]> = [
    ['before Linux 5.10', { ...debian, release: '5.4.0' }, [], /^No: no kernel module gives a client's address\. Load your balancer's toa\.ko; or/],
    ['attach offered', debian, [], /Attach to your service's cgroup \(sudo fastify-real-ip attach --cgroup CGROUP --trusted-peers BALANCERS\); or/],
    ['attach, before Linux 5.18', { ...debian, kernel: { ...plain, optnames: { ...plain.optnames, 1348: 'EPERM' } } }, ['vtoa'], /^Yes: vtoa\./],
    ['no module', debian, [], /^No: no kernel module .* toa\.ko.* 'saved-syn'.* npx fastify-real-ip watch PORT$/],
    ['Alibaba Cloud Linux 3 without vtoa', alinux, [], /^No: vtoa does not answer\. sudo yum install vtoa -y && sudo systemctl start vtoa$/],
    ['in a container of it', { ...alinux, hostNetwork: false }, [], /on the host: sudo yum install vtoa/],
    ['in a container on its network', { ...alinux, hostProcesses: false }, [], /on the host: sudo yum install vtoa/],
    ['vtoa', { ...alinux, modules: { vtoa: true, toa: false }, kernel: vtoa }, ['vtoa', 'getpeername'], /^Yes: vtoa, getpeername\. .*'trustedPeers'/],
    ['vtoa on an older kernel', { ...alinux, modules: { vtoa: true, toa: false } }, ['getpeername'], /^Yes: getpeername\./],
    ['1348 answers, whatever /sys says', { ...debian, modules: undefined, kernel: vtoa }, ['vtoa'], /^Yes: vtoa\./],
    ['a toa.ko', { ...debian, modules: { vtoa: false, toa: true } }, ['getpeername'], /^Yes: getpeername\./],
    ["DPVS's, with NAT64", { ...debian, modules: { vtoa: false, toa: true }, kernel: { ...plain, optnames: { ...plain.optnames, 4096: 'EINVAL' } } }, ['nat64', 'getpeername'], /^Yes: nat64, getpeername\./],
    ['a module, but no system calls', { ...debian, modules: { vtoa: true, toa: true }, kernel: 'koffi cannot be loaded' }, [], /^No: koffi cannot be loaded\.$/]
  ]
  for (const [what, machine, sources, message] of cases) {
    const report = diagnose(machine)
    t.same(report.sources, sources, what)
    t.equal(report.works, sources.length > 0, what)
    t.match(report.message, message, what)
    t.equal(find(report, "sources: 'auto'").state, typeof machine.kernel === 'string' ? 'unknown' : report.works ? 'good' : 'bad')
  }
})

t.test('each line', async (t) => {
  const kernelOf = (changes: Partial<Kernel>): Partial<Machine> => ({ kernel: { ...plain, ...changes } })
  const notAsked = { kernel: 'koffi is broken' }
  const cases: Array<[name: string, changes: Partial<Machine>, state: Finding['state'], message: RegExp, fix?: RegExp]> = [
    ['platform', {}, 'good', /^linux on x64, Node\.js 20\.20\.2$/],
    ['platform', { platform: 'darwin', kernel: 'no' }, 'bad', /^darwin .*TOA can be read on Linux only/, /^run the server on Linux/],

    ['kernel', {}, 'unknown', /^6\.1\.0-28-amd64: vtoa is only for Alibaba Cloud Linux 3.*toa\.ko.*saved-syn/, /watch PORT/],
    ['kernel', { platform: 'darwin', release: '24.1.0' }, 'n/a', /^24\.1\.0, not Linux$/],
    ['kernel', { release: '5.10.134-17.al8.x86_64' }, 'good', /getsockopt 1348 and getpeername/],
    ['kernel', { release: '5.10.134-18.0.2.al8.aarch64' }, 'good', /getsockopt 1348 and getpeername/],
    ['kernel', { release: '5.10.140-1.al8.x86_64' }, 'good', /getsockopt 1348 and getpeername/],
    ['kernel', { release: '6.6.102-5.al8.x86_64' }, 'good', /getsockopt 1348 and getpeername/],
    ['kernel', { release: '10.0.1-1.al8.x86_64' }, 'good', /getsockopt 1348 and getpeername/],
    ['kernel', { release: '5.10.134-16.3.al8.x86_64' }, 'good', /answers getpeername; getsockopt 1348 needs 5\.10\.134-17/, /yum update kernel/],
    ['kernel', { release: '5.10.134-15.al8.x86_64' }, 'good', /answers getpeername; getsockopt 1348 needs 5\.10\.134-17/, /yum update kernel/],
    ['kernel', { release: '5.10.134-14.1.al8.x86_64' }, 'bad', /vtoa needs 5\.10\.134-15 or later/, /yum update kernel/],
    ['kernel', { release: '5.10.84-30.al8.x86_64' }, 'bad', /vtoa needs 5\.10\.134-15 or later/, /yum update kernel/],
    ['kernel', { release: '4.19.91-27.al7.x86_64' }, 'unknown', /only for Alibaba Cloud Linux 3/, /watch PORT/],
    ['kernel', { release: 'mine-5.10.134-17.al8.x86_64' }, 'unknown', /only for Alibaba Cloud Linux 3/, /watch PORT/],
    ['kernel', { release: '5.10.134-17.an8.x86_64' }, 'unknown', /only for Alibaba Cloud Linux 3/, /watch PORT/],

    ['koffi', {}, 'good', /tried in a child process/],
    ['koffi', { platform: 'darwin', koffi: { state: 'fails', message: 'TOA can be read on Linux only' } }, 'n/a', /^needed only on Linux$/],
    ['koffi', { koffi: { state: 'untried', message: 'no child process' } }, 'unknown', /^no child process$/, /^node --require koffi --eval 0/],
    ['koffi', { koffi: { state: 'fails', message: "koffi cannot be loaded (Cannot find module 'koffi')" } }, 'bad', /Cannot find/, /^npm install koffi$/],
    ['koffi', { koffi: { state: 'fails', message: 'koffi cannot be loaded (Cannot load native addon)' } }, 'bad', /Cannot load native addon/, /^start Node\.js without --no-addons/],
    ['koffi', { koffi: { state: 'fails', message: 'koffi cannot be loaded (Cannot find the native Koffi module; did you bundle it correctly?)' } }, 'bad', /its binary is missing\. Optional dependencies were omitted/, /^npm install --include=optional$/],
    ['koffi', { koffi: { state: 'fails', message: 'koffi cannot be loaded (koffi.node: file too short)' } }, 'bad', /file too short\): its binary is truncated/, /^rm -rf node_modules\/koffi node_modules\/@koromix && npm install$/],
    ['koffi', { koffi: { state: 'fails', message: 'a process that loads koffi was killed by SIGSEGV' } }, 'bad', /SIGSEGV: its binary is truncated, or for another platform$/, /^rm -rf node_modules\/koffi node_modules\/@koromix && npm install$/],

    ['module vtoa', {}, 'n/a', /^not loaded: it is only for Alibaba Cloud Linux 3$/],
    ['module vtoa', { release: alinux.release, modules: { vtoa: false, toa: true } }, 'n/a', /^not loaded: another module is$/],
    ['module vtoa', { release: alinux.release }, 'bad', /^not loaded$/, /^sudo yum install vtoa -y && sudo systemctl start vtoa$/],
    ['module vtoa', { release: alinux.release, hostNetwork: false }, 'bad', /^not loaded$/, /^on the host: sudo yum/],
    ['module vtoa', { modules: { vtoa: true, toa: false } }, 'good', /^loaded$/],
    ['module vtoa', { modules: undefined }, 'unknown', /\/sys\/module/, /lsmod/],
    ['module toa', {}, 'bad', /^not loaded.*DPVS/, /toa\.ko.* sudo insmod toa\.ko$/],
    ['module toa', { release: alinux.release }, 'n/a', /^not loaded.*DPVS/],
    ['module toa', { modules: { vtoa: true, toa: false } }, 'n/a', /^not loaded.*DPVS/],
    ['module toa', { modules: { vtoa: false, toa: true } }, 'good', /^loaded: getpeername.*Huawei's module does so only for listeners on an IPv4 address: .* 0\.0\.0\.0, not on ::$/],
    ['module toa', { modules: { vtoa: false, toa: true }, ...kernelOf({ optnames: { ...plain.optnames, 4096: 'EINVAL' } }) }, 'good', /^loaded: getpeername returns the client$/],
    ['module toa', { modules: { vtoa: false, toa: true }, ...notAsked }, 'good', /Huawei/],
    ['module toa', { modules: undefined }, 'unknown', /\/sys\/module/, /lsmod/],

    ['counters', {}, 'n/a', /^none: no module is visible$/],
    ['counters', { modules: undefined }, 'unknown', /^none visible; whether a module is loaded is unknown$/, /lsmod/],
    ['counters', { vtoaStats: '                    CPU0  CPU1\nsyn_recv_sock_toa :  3   4\nsyn_recv_sock_no_toa  1' }, 'good', /^vtoa_stats: syn_recv_sock_toa 7, syn_recv_sock_no_toa 1$/],
    ['counters', { vtoaStats: '', toaStats: 'getname_toa_ok : 2' }, 'good', /^vtoa_stats: empty; toa_stats: getname_toa_ok 2$/],
    ['counters', { toaStats: 'ok: 2\nfailed   : 3\nversion : 1.2 beta\nof-what : 9' }, 'good', /^toa_stats: ok 2, failed 3$/],
    ['counters', { modules: { vtoa: true, toa: true } }, 'unknown', /^\/proc\/net\/vtoa_stats is not visible/, /^on the host: cat \/proc\/net\/vtoa_stats$/],
    ['counters', { modules: { vtoa: false, toa: true } }, 'unknown', /^\/proc\/net\/toa_stats is not visible/, /^on the host: cat \/proc\/net\/toa_stats$/],

    ['getsockopt 1348', {}, 'bad', /^no module answers 1348: not loaded, or too old, and nothing is attached/, /^sudo fastify-real-ip attach --cgroup/],
    ['getsockopt 1348', { hostProcesses: false }, 'bad', /nothing is attached/, /^on the host: sudo fastify-real-ip attach --cgroup/],
    ['getsockopt 1348', { release: '5.4.0' }, 'n/a', /^no module answers 1348: not loaded, or too old; only vtoa's newer builds and fastify-real-ip attach/],
    ['getsockopt 1348', { modules: { vtoa: false, toa: true } }, 'n/a', /; only vtoa/],
    ['getsockopt 1348', { release: '4.19.0-1.al8.x86_64' }, 'bad', /no module answers 1348/, /^sudo yum update kernel -y && sudo reboot$/],
    ['getsockopt 1348', { release: alinux.release, modules: { vtoa: true, toa: false } }, 'bad', /vtoa is loaded, and getpeername answers$/, /^sudo yum update vtoa/],
    ['getsockopt 1348', { release: '5.10.134-16.al8.x86_64', modules: { vtoa: true, toa: false } }, 'bad', /vtoa is loaded, and getpeername answers$/, /^sudo yum update kernel/],
    ['getsockopt 1348', { release: '5.10.134-14.al8.x86_64' }, 'bad', /no module answers 1348/, /^sudo yum update kernel/],
    ['getsockopt 1348', { release: alinux.release, modules: { vtoa: false, toa: true } }, 'n/a', /^no module answers 1348: not loaded, or too old$/],
    ['getsockopt 1348', { release: alinux.release }, 'bad', /no module answers/, /^sudo yum install vtoa .*; or sudo fastify-real-ip attach --cgroup/],
    ['getsockopt 1348', { kernel: vtoa }, 'good', /^vtoa or attach: it answers \(ESRCH on a loopback connection, which has no TOA\)$/],
    ['getsockopt 1348', notAsked, 'unknown', /^not asked: koffi is broken$/, /^sudo ip link set lo up/],
    ['getsockopt 1348', { ...notAsked, koffi: { state: 'fails', message: 'koffi is broken' } }, 'unknown', /^not asked/, /^rm -rf/],
    ['getsockopt 1348', { platform: 'darwin', kernel: 'TOA can be read on Linux only' }, 'n/a', /^not asked/],
    ['attach', {}, 'bad', /^not attached: this process is in the cgroup \/sys\/fs\/cgroup\/a\.slice\/b\.scope; a service may be in another/, /^sudo fastify-real-ip attach --cgroup CGROUP --trusted-peers BALANCERS$/],
    ['attach', { attachments: [attachedTo('5')] }, 'bad', /^not attached/, /^sudo fastify-real-ip attach/],
    ['attach', { modules: { vtoa: false, toa: true } }, 'n/a', /^not attached/],
    ['attach', { attachments: [attachedTo('77', 'incomplete'), attachedTo('7')] }, 'good', /^attached to \/sys\/fs\/cgroup\/a\.slice: this process/],
    ['attach', { attachments: [attachedTo('7', 'detached')] }, 'bad', /^detached at \/sys\/fs\/cgroup\/a\.slice: /, /^sudo fastify-real-ip attach --cgroup \/sys\/fs\/cgroup\/a\.slice --trusted-peers BALANCERS$/],
    ['attach', { attachments: 'it may not be read (EACCES): run this as root.' }, 'unknown', /^this process is in .*cannot be read: .*EACCES/, /^run doctor as root$/],
    ['attach', { attachments: '/sys/fs/bpf is not a BPF file system', hostNetwork: false }, 'unknown', /is not a BPF file system/, /^run doctor as root, on the host$/],
    ['attach', { cgroups: [] }, 'unknown', /^the cgroup v2 of this process cannot be read$/, /mount -t cgroup2/],
    ['attach', { release: '5.4.0' }, 'n/a', /^5\.4\.0: attach needs Linux 5\.10/],
    ['attach', { platform: 'darwin' }, 'n/a', /only on Linux/],
    ['getsockopt 1345-1347', {}, 'n/a', /no module answers/],
    ['getsockopt 1345-1347', { kernel: vtoa }, 'good', /^1345, 1347 answered/],
    ['getsockopt 4096', {}, 'n/a', /only DPVS with NAT64 needs it/],
    ['getsockopt 4096', kernelOf({ optnames: { ...plain.optnames, 4096: 'EINVAL' } }), 'good', /^DPVS's toa module: it answers \(EINVAL/],

    ['TCP_SAVE_SYN', {}, 'good', /a SYN was saved/],
    ['TCP_SAVE_SYN', kernelOf({ saveSyn: without, savedSyn: false }), 'bad', /^refused \(ENOPROTOOPT\).*Linux 4\.3/, /^update the kernel/],
    ['TCP_SAVE_SYN', kernelOf({ savedSyn: false }), 'bad', /no SYN was saved/, /tcp_syncookies=1/],
    ['sock_diag', {}, 'good', /^finds the sender/],
    ['sock_diag', kernelOf({ diag: false }), 'bad', /does not find/, /modprobe -a inet_diag tcp_diag/],
    ['sock_diag', notAsked, 'unknown', /not asked/, /lo up/],

    ['SYN cookies', { syncookies: '0' }, 'good', /^off/],
    ['SYN cookies', { syncookies: '1' }, 'good', /only in a SYN flood/],
    ['SYN cookies', { syncookies: '2' }, 'bad', /always on/, /sysctl -w net\.ipv4\.tcp_syncookies=1/],
    ['SYN cookies', { syncookies: undefined }, 'unknown', /cannot be read/, /^on the host: sysctl net\.ipv4\.tcp_syncookies$/],
    ['SYN cookies', { syncookies: undefined, platform: 'darwin' }, 'n/a', /cannot be read/],
    ['Fast Open', {}, 'good', /^off for servers$/],
    ['Fast Open', { fastopen: '3' }, 'good', /^on for servers, with cookies; .*trustedPeers/],
    ['Fast Open', { fastopen: '1539' }, 'bad', /without cookies/, /tcp_fastopen=1/],
    ['Fast Open', { fastopen: undefined }, 'unknown', /cannot be read/, /^on the host: sysctl net\.ipv4\.tcp_fastopen$/],

    ['namespace', {}, 'good', /^the host's own network namespace$/],
    ['namespace', { hostProcesses: false }, 'good', /^a container in the host's own/],
    ['namespace', { hostProcesses: undefined }, 'good', /^the host's own network namespace$/],
    ['namespace', { hostNetwork: false }, 'unknown', /modules on the host serve it too, but their counters are visible only on the host$/, /^on the host: npx fastify-real-ip doctor$/],
    ['namespace', { hostNetwork: undefined }, 'unknown', /cannot be determined/, /^on the host/],
    ['namespace', { hostNetwork: undefined, platform: 'darwin' }, 'n/a', /only on Linux/],
    ['PROXY protocol', {}, 'n/a', /sources: \['proxy-protocol'\] and 'trustedPeers'; .* watch PORT --proxy-protocol/]
  ]
  for (const [name, changes, state, message, fix] of cases) {
    const finding = find(diagnose({ ...debian, ...changes }), name)
    const what = `${name}: ${finding.message}`
    t.equal(finding.state, state, what)
    t.match(finding.message, message)
    if (fix === undefined) t.notOk('fix' in finding, what)
    else t.match(finding.fix, fix)
    for (const { name, state, fix } of diagnose({ ...debian, ...changes }).findings) {
      t.equal(fix !== undefined || state === 'good' || state === 'n/a', true, `${name} is ${state}, and has its cure`)
    }
  }
  t.same([...new Set(cases.map(([name]) => name)), "sources: 'auto'"], diagnose(debian).findings.map(({ name }) => name), 'and no other')
})

t.test('the report as text', async (t) => {
  const report: Report = {
    works: false,
    sources: [],
    message: 'No: not here.',
    findings: [
      { name: 'one', state: 'good', message: 'as it should be' },
      { name: 'another', state: 'bad', message: 'not as it should be, far from it', fix: 'sudo mend it' },
      { name: 'third', state: 'unknown', message: 'averyverylongword' }
    ]
  }
  t.equal(drawReport(report, {}), [
    'No: not here.',
    '',
    '  good     one      as it should be',
    '  bad      another  not as it should be, far from it',
    '                    -> sudo mend it',
    '  unknown  third    averyverylongword'
  ].join('\n'))
  t.equal(drawReport(report, { columns: 32 }), [
    'No: not here.',
    '',
    '  good     one      as it should',
    '                    be',
    '  bad      another  not as it',
    '                    should be,',
    '                    far from it',
    '                    -> sudo mend it',
    '  unknown  third    averyverylongword'
  ].join('\n'))
  const coloured = drawReport(report, { colours: true })
  t.match(coloured, '\x1b[32mgood   \x1b[39m')
  t.match(coloured, '\x1b[31mbad    \x1b[39m')
  t.match(coloured, '-> \x1b[1msudo mend it\x1b[22m')
  t.match(coloured, '\x1b[31mNo: not here.\x1b[39m')
  t.match(drawReport({ ...report, works: true }, { colours: true }), '\x1b[32mNo: not here.\x1b[39m')
})

const nothing = process.platform !== 'linux' && 'needs Linux'
const parse = ({ stdout }: Printed) => JSON.parse(stdout) as Report & { version: string }

t.test('on this machine, whatever it has', { skip: nothing }, async (t) => {
  const printed = await run(['doctor', '--json'])
  const report = parse(printed)
  t.equal(printed.stderr, '')
  t.equal(printed.code, report.works ? 0 : 1)
  t.equal(report.version, require('fastify-real-ip/package.json').version)
  t.same(report.findings.map(({ name }) => name), diagnose(debian).findings.map(({ name }) => name))
  for (const { state, message } of report.findings) {
    t.match(state, /^(good|bad|unknown|n\/a)$/)
    t.match(message, /\S/)
  }
  t.match(find(report, 'koffi'), { state: 'good' })
  t.match(find(report, 'TCP_SAVE_SYN'), { state: 'good' })
  t.match(find(report, 'sock_diag'), { state: 'good' })
  t.match(find(report, "sources: 'auto'").message, /^sources vtoa/)

  const text = await run(['doctor'])
  t.equal(text.code, printed.code)
  t.equal(text.stdout, `${drawReport(report, {})}\n`)
  t.notMatch(text.stdout, '\x1b', 'no colours but on a terminal')
})

/** A module that Node.js runs before the program, in its child process too. */
function preload (t: Test, code: string): string[] {
  const folder = mkdtempSync(join(tmpdir(), 'doctor-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const file = join(folder, 'preload.cjs')
  writeFileSync(file, code)
  return ['--require', file]
}

const whenKoffiLoads = (code: string) => `
  const Module = require('node:module')
  const { _load } = Module
  Module._load = function (request, ...rest) {
    if (request === 'koffi') { ${code} }
    return _load.call(this, request, ...rest)
  }`

t.test('koffi that cannot be loaded', { skip: nothing }, async (t) => {
  const missing = whenKoffiLoads("throw new Error(\"Cannot find module 'koffi'\\nRequire stack:\\n- here\")")
  const nowhere = "process.execPath = '/nowhere/node'"
  const cases: Array<[what: string, flags: string[], koffi: Partial<Finding>, verdict: RegExp]> = [
    ['missing', preload(t, missing), { state: 'bad', fix: 'npm install koffi' }, /^No: koffi cannot be loaded \(Cannot find module 'koffi'\)\.$/],
    ['forbidden', ['--no-addons'], { state: 'bad' }, /^No: koffi cannot be loaded \(.*addon/],
    ['deadly', preload(t, whenKoffiLoads("process.kill(process.pid, 'SIGKILL')")), { state: 'bad' }, /killed by SIGKILL/],
    ['silent', preload(t, whenKoffiLoads('process.exit(7)')), { state: 'bad' }, /exit code 7/],
    ['no child process, and forbidden', [...preload(t, nowhere), '--no-addons'], { state: 'unknown', message: 'no child process could be started to load it (ENOENT)' }, /^No: koffi cannot be loaded \(.*addon/]
  ]
  for (const [what, flags, koffi, verdict] of cases) {
    const printed = await run(['doctor', '--json'], { flags })
    t.same([printed.code, printed.stderr], [1, ''], what)
    const report = parse(printed)
    t.match(report.message, verdict)
    t.match(find(report, 'koffi'), koffi)
    t.match(find(report, 'sock_diag'), { state: 'unknown', message: /^not asked: / })
  }

  const report = parse(await run(['doctor', '--json'], { flags: preload(t, nowhere) }))
  t.match(find(report, 'koffi'), { state: 'unknown' })
  t.match(find(report, 'sock_diag'), { state: 'good' }, 'where no child process can be had it is tried here')
})

/** This package installed as users have it, with a copy of koffi; the program in it. */
function install (t: Test, change: (modules: string) => void): string {
  // Not inside the project, where the whole koffi would be found further up.
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'doctor-')))
  t.teardown(() => rmSync(folder, { recursive: true }))
  const modules = join(folder, 'node_modules')
  const { dependencies, name } = require('fastify-real-ip/package.json')
  const project = dirname(require.resolve('fastify-real-ip/package.json'))
  for (const shipped of ['package.json', 'dist/lib']) cpSync(join(project, shipped), join(modules, name, shipped), { recursive: true })
  for (const dependency of [...Object.keys(dependencies), '@koromix']) {
    const from = join(project, 'node_modules', dependency)
    mkdirSync(dirname(join(modules, dependency)), { recursive: true })
    if (dependency === 'koffi' || dependency === '@koromix') cpSync(from, join(modules, dependency), { recursive: true })
    else symlinkSync(from, join(modules, dependency))
  }
  change(modules)
  return join(modules, name, 'dist/lib/cli/bin.js')
}

/** The binaries of koffi, which come in a package for each platform. */
const binariesIn = (modules: string) => readdirSync(join(modules, '@koromix'), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.node')).map((name) => join(modules, '@koromix', name))

t.test('koffi whose binary is broken, or was not installed', { skip: nothing }, async (t) => {
  const broken: Array<[what: string, change: (modules: string) => void, fix: string, message: RegExp]> = [
    ['left out', (modules) => { rmSync(join(modules, '@koromix'), { recursive: true }) }, 'npm install --include=optional',
      /Cannot find the native Koffi module.*: its binary is missing\. Optional dependencies were omitted/],
    ['empty', (modules) => { for (const file of binariesIn(modules)) truncateSync(file) }, REINSTALL, /file too short\): its binary is truncated/],
    ['cut short', (modules) => { for (const file of binariesIn(modules)) truncateSync(file, 100_000) }, REINSTALL,
      /^a process that loads koffi was killed by SIG(BUS|SEGV): its binary is truncated/]
  ]
  for (const [what, change, fix, message] of broken) {
    const program = install(t, change)
    const printed = await run(['doctor', '--json'], { program })
    t.same([printed.code, printed.stderr], [1, ''], what)
    t.match(find(parse(printed), 'koffi'), { state: 'bad', fix, message })
    const watch = await run(['watch', '0'], { program })
    t.same([watch.code, watch.stdout], [1, ''], what)
    t.match(watch.stderr, /^fastify-real-ip: watch cannot examine connections here: .*koffi.*\.\n$/)
  }
})

t.test('elsewhere than on Linux', async (t) => {
  const flags = preload(t, "Object.defineProperty(process, 'platform', { value: 'plan9' })")
  const printed = await run(['doctor', '--json'], { flags })
  t.same([printed.code, printed.stderr], [1, ''])
  const report = parse(printed)
  t.equal(report.message, 'No: TOA can be read on Linux only, this is plan9.')
  t.match(find(report, 'platform'), { state: 'bad', message: /^plan9 / })

  const watch = await run(['watch', '0'], { flags })
  t.same(watch, { code: 1, stdout: '', stderr: 'fastify-real-ip: watch cannot examine connections here: TOA can be read on Linux only, this is plan9.\n' })
})

t.test('the permission model', { skip: nothing }, async (t) => {
  const flag = process.allowedNodeEnvironmentFlags.has('--permission') ? '--permission' : '--experimental-permission'
  // tap's own preload does what the permission model forbids.
  const { code, stdout } = await run(['doctor', '--json'], { flags: [flag, '--allow-fs-read=*'], before: ['env', '-u', 'NODE_OPTIONS'] })
  t.equal(code, 1)
  t.match(find(JSON.parse(stdout), 'koffi'), { state: 'unknown', message: 'no child process could be started to load it (ERR_ACCESS_DENIED)' })
})

const noTerminal = spawnSync('script', ['--version']).error !== undefined && 'needs script(1)'

t.test('on a terminal it has colours, and its width', { skip: nothing || noTerminal }, async (t) => {
  const inTerminal = 'script --quiet --return --command "stty cols 60; \'$1\' \'$2\' doctor" /dev/null'
  const env = { TERM: 'xterm-256color', NO_COLOR: undefined, FORCE_COLOR: undefined, CI: undefined, NODE_DISABLE_COLORS: undefined }
  const { stdout } = await run([], { before: ['sh', '-c', inTerminal, 'sh'], env })
  t.match(stdout, '\x1b[32mgood   \x1b[39m')
  t.match(stdout, /^ {33}\S/m, 'wrapped')
})

const unshare = ['-nm', '-Urnm'].find((flags) => spawnSync('unshare', [flags, 'true']).status === 0)

t.test('without /proc, /sys and a loopback interface', {
  skip: unshare === undefined && process.env.FASTIFY_REAL_IP_LAB !== 'required' && 'needs unshare(1) and its rights'
}, async (t) => {
  const before = ['unshare', String(unshare), 'sh', '-c', 'mount -t tmpfs none /proc && mount -t tmpfs none /sys && exec "$@"', 'sh']
  const printed = await run(['doctor', '--json'], { before })
  t.same([printed.code, printed.stderr], [1, ''])
  const report = parse(printed)
  t.match(report.message, /^No: no loopback connection can be opened \(E\w+\)\.$/)
  for (const name of ['module vtoa', 'counters', 'SYN cookies', 'Fast Open', 'namespace', 'sock_diag', "sources: 'auto'"]) {
    t.equal(find(report, name).state, 'unknown', name)
  }
})

t.test('what /proc and /sys say', {
  skip: unshare === undefined && process.env.FASTIFY_REAL_IP_LAB !== 'required' && 'needs unshare(1) and its rights'
}, async (t) => {
  // Files of our own in place of the kernel's, for this one process.
  const on = async (...files: string[]) => {
    const commands = ['mount -t tmpfs none /proc', 'mount -t tmpfs none /sys', 'mkdir -p /sys/module /proc/self/ns /proc/net /proc/sys/net/core /proc/sys/net/ipv4']
    const before = ['unshare', String(unshare).replace('n', ''), 'sh', '-c', `${[...commands, ...files].join(' && ')} && exec "$@"`, 'sh']
    return parse(await run(['doctor', '--json'], { before }))
  }
  const host = await on(
    'mkdir /sys/module/vtoa', 'echo "ok : 2" > /proc/net/vtoa_stats', 'echo "ok : 3" > /proc/net/toa_stats', 'echo 2 > /proc/sys/net/ipv4/tcp_syncookies',
    'echo 1539 > /proc/sys/net/ipv4/tcp_fastopen', 'echo 1000 > /proc/sys/net/core/netdev_max_backlog', "ln -s 'pid:[4026531836]' /proc/self/ns/pid"
  )
  t.equal(find(host, 'module vtoa').state, 'good')
  t.equal(find(host, 'module toa').state, 'n/a')
  t.equal(find(host, 'counters').message, 'vtoa_stats: ok 2; toa_stats: ok 3')
  t.match(find(host, 'SYN cookies').message, /^always on/)
  t.match(find(host, 'Fast Open').message, /without cookies/)
  t.equal(find(host, 'namespace').message, "the host's own network namespace")

  const container = await on('mkdir /sys/module/toa', 'touch /proc/sys/net/core/netdev_max_backlog', "ln -s 'pid:[4026532000]' /proc/self/ns/pid")
  t.equal(find(container, 'module vtoa').state, 'n/a')
  t.equal(find(container, 'module toa').state, 'good')
  t.equal(find(container, 'namespace').message, "a container in the host's own network namespace")
  t.match(find(await on(), 'namespace').message, /^a container's or another network namespace/)
  t.match(find(await on('rmdir /sys/module'), 'module vtoa'), { state: 'unknown' })
})

inLab('beside the stand-in for vtoa', async (t, lab) => {
  const before = parse(await run(['doctor', '--json']))
  t.notOk(before.works, 'not yet')

  lab.module.start()
  const printed = await run(['doctor', '--json'])
  const report = parse(printed)
  t.equal(printed.code, 0)
  t.match(report, { works: true, sources: ['vtoa'], message: /^Yes: vtoa\./ })
  t.match(find(report, 'getsockopt 1348'), { state: 'good', message: /ESRCH/ })
  t.match(find(report, "sources: 'auto'"), { state: 'good', message: /^sources vtoa, getpeername/ })

  lab.module.stop()
  t.equal((await run(['doctor'])).code, 1)
})
