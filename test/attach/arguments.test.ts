import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import t from 'tap'
import { readArguments } from '../../lib/cli/arguments'
import { refusesArguments, run } from '../cli/cli'

const attach = ['attach', '--cgroup', '/c', '--trusted-peers', '10.0.0.0/24']
const formats = [{ kind: 254, length: 8, family: 'IPv4' }, { kind: 253, length: 20, family: 'IPv6' }]

t.test('what is understood', async (t) => {
  t.same(readArguments(attach), {
    command: 'attach', json: false, bpffs: '/sys/fs/bpf', cgroup: '/c', trustedPeers: ['10.0.0.0/24'], formats, getpeername: false, verbose: false
  })
  t.match(readArguments([...attach, '--getpeername', '--verbose', '--json', '--bpffs', '/b']), {
    json: true, bpffs: '/b', getpeername: true, verbose: true
  })
  t.match(readArguments(['attach', '--cgroup', '/c', '--trusted-peers', 'any']), { trustedPeers: 'any' })
  t.match(readArguments(['attach', '--cgroup', '/c', '--trusted-peers', '10.0.0.1, fd00::/8,']), { trustedPeers: ['10.0.0.1', 'fd00::/8'] })
  t.match(readArguments([...attach, '--toa', 'alibaba']), { formats })
  t.match(readArguments([...attach, '--toa', 'dpvs']), { formats: [{ kind: 254, length: 8 }, { kind: 254, length: 20, family: 'IPv6' }] })
  t.same((readArguments([...attach, '--toa', 'ucloud']) as { formats: unknown }).formats, [{ kind: 200, length: 8, family: 'IPv4' }])
  t.match(readArguments([...attach, '--toa', '254/8/ipv4 , 28/40/IPv6']), { formats: [formats[0], { kind: 28, length: 40, family: 'IPv6' }] })
  t.same(readArguments(['detach', '--cgroup', '/c']), { command: 'detach', json: false, bpffs: '/sys/fs/bpf', from: { cgroup: '/c' } })
  t.match(readArguments(['detach', '--id', '17', '--json']), { json: true, from: { id: '17' } })
  t.same(readArguments(['status', '--bpffs', '/b']), { command: 'status', json: false, bpffs: '/b' })
})

const wrong: Array<[args: string[], says: RegExp]> = [
  [['attach'], /^attach needs --cgroup PATH/],
  [['attach', '/c'], /^attach takes no argument '\/c': write the cgroup as --cgroup PATH/],
  [['attach', '--cgroup', '/c'], /^attach needs --trusted-peers: .* or any, with which every client can forge its address/],
  [['attach', '--cgroup', '/c', '--trusted-peers', ' ,'], /^--trusted-peers is empty/],
  [['attach', '--cgroup', '/c', '--trusted-peers', 'any,10.0.0.1'], /^'--trusted-peers' has "any": this is no IP address/],
  [['attach', '--cgroup', '/c', '--trusted-peers', '10.0.0.1/8'], /it has bits behind its prefix/],
  [[...attach, '--toa', 'nobody'], /^--toa takes alibaba, ucloud, tencent, dpvs, or kind\/length\/family, .* not 'nobody'/],
  [[...attach, '--toa', '254/8/IPv4/first'], /not '254\/8\/IPv4\/first'/],
  [[...attach, '--toa', '254/8/IPv5'], /not '254\/8\/IPv5'/],
  [[...attach, '--toa', '1/8/IPv4'], /'1\/8\/IPv4': the kind must be 2 to 254/],
  [[...attach, '--toa', '255/8/IPv4'], /the kind must be 2 to 254/],
  [[...attach, '--toa', '254/7/IPv4'], /the length is 8 to 40 for IPv4, including both header bytes/],
  [[...attach, '--toa', '253/19/IPv6'], /20 to 40 for IPv6/],
  [[...attach, '--toa', '253/41/IPv6'], /20 to 40 for IPv6/],
  [[...attach, '--toa', Array(9).fill('254/8/IPv4').join()], /^--toa takes at most 8 formats/],
  [[...attach, '--count', '1'], /^attach has no option --count; it takes --cgroup, --trusted-peers, /],
  [['detach'], /^detach needs either --cgroup PATH or --id N/],
  [['detach', '--cgroup', '/c', '--id', '1'], /^detach needs either/],
  [['detach', '--id', 'all'], /^--id takes a number that status prints, not 'all'/],
  [['detach', '--cgroup', '/c', '--verbose'], /^detach has no option --verbose/],
  [['status', '--cgroup', '/c'], /^status has no option --cgroup; it takes --bpffs, --json/],
  [['doctor', '--cgroup', '/c'], /^doctor has no option --cgroup/],
  [['watch', '80', '--getpeername'], /^watch has no option --getpeername; see --help/]
]

t.test('what is not: one sentence', async (t) => {
  for (const [args, says] of wrong) refusesArguments(t, args, says)
})

t.test('the unit, the manifest and the documents use options that exist', async (t) => {
  const project = dirname(require.resolve('fastify-real-ip/package.json'))
  const read = (path: string) => readFileSync(join(project, path), 'utf8')
  const commandsOf = (lines: Iterable<RegExpMatchArray>) => [...lines].map(([, line]) => readArguments((line as string).split(/\s+/)))

  const cgroup = '/sys/fs/cgroup/system.slice'
  const attached = { command: 'attach', cgroup, trustedPeers: ['10.0.0.0/24'] }
  t.match(commandsOf(read('examples/attach/fastify-real-ip-attach.service').matchAll(/^Exec\w+=\/\S+\/fastify-real-ip (.+)$/gm)),
    [attached, attached, { command: 'detach', from: { cgroup } }])

  const [, list] = /command:\s+- fastify-real-ip\s+((?:- \S+\s+)+)/.exec(read('examples/attach/daemonset.yaml')) ?? []
  t.match(readArguments([...(list as string).matchAll(/- (\S+)/g)].map(([, word]) => word as string)), {
    command: 'attach', cgroup: '/host/cgroup/kubepods.slice', trustedPeers: ['10.0.0.0/24'], bpffs: '/host/bpf'
  })

  const documented = commandsOf(read('docs/attach.md').matchAll(/^sudo fastify-real-ip (.+)$/gm))
  t.match(documented.map((given) => (given as { command: string }).command), ['attach', 'status', 'detach'])
})

t.test('the program: code 2 and nothing on stdout; --help has the commands', async (t) => {
  const { code, stdout, stderr } = await run(['attach'])
  t.same([code, stdout], [2, ''])
  t.match(stderr, /^fastify-real-ip: attach needs --cgroup PATH, [^\n]+\.\n$/)
  const help = await run(['--help'])
  for (const text of ['attach --cgroup PATH --trusted-peers LIST', 'detach --cgroup PATH | --id N', 'status [', '--getpeername', '--bpffs', '--verbose']) {
    t.match(help.stdout, text)
  }
})
