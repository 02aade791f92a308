import t from 'tap'
import { readArguments } from '../../lib/cli/arguments'
import { refusesArguments, run } from './cli'

t.test('what is understood', async (t) => {
  t.equal(readArguments(['--help']), 'help')
  t.equal(readArguments(['watch', '-h']), 'help')
  t.equal(readArguments(['--version']), 'version')
  t.same(readArguments(['doctor']), { command: 'doctor', json: false })
  t.same(readArguments(['--json', 'doctor']), { command: 'doctor', json: true })
  t.match(readArguments(['watch', '8080']), {
    command: 'watch', port: 8080, host: undefined, count: undefined, json: false, options: { sources: 'auto', trustedPeers: undefined, toa: undefined }
  })
  t.match(readArguments(['watch', '0', '--host', '::1', '--count=3', '--json', '--trusted-peers', '10.0.0.0/8, fd00::/8,']), {
    port: 0, host: '::1', count: 3, json: true, options: { trustedPeers: ['10.0.0.0/8', 'fd00::/8'] }
  })
  t.match(readArguments(['watch', '65535', '--count', '12']), { port: 65535, count: 12 })
  t.match(readArguments(['watch', '80', '--trusted-peers', 'any']), { options: { trustedPeers: 'any' } })
  t.match(readArguments(['watch', '80', '--trusted-peers', '10.0.0.1', '--proxy-protocol']), { options: { sources: [], proxyProtocol: { from: undefined, timeout: 5000 } } })
  t.match(readArguments(['watch', '80', '--trusted-peers', '10.0.0.1', '--toa', 'alibaba']), { options: { toa: { formats: [{ kind: 254 }, { kind: 253 }] } } })
  t.match(readArguments(['watch', '80', '--trusted-peers', '10.0.0.1', '--toa', '254/8/ipv4/first , 253/20/IPv6/last']), {
    options: {
      toa: {
        formats: [
          { kind: 254, length: 8, family: 'IPv4', position: 'first' }, { kind: 253, length: 20, family: 'IPv6', position: 'last' }
        ]
      }
    }
  })
})

const balancer = ['--trusted-peers', '10.0.0.1']
const wrong: Array<[args: string[], says: RegExp]> = [
  [[], /^A command is missing: write doctor, watch PORT, attach, detach, status, or --help\.$/],
  [['guess'], /^There is no command 'guess'/],
  [['doctor', '8080'], /^doctor takes no argument '8080'/],
  [['doctor', '--count', '1'], /^doctor has no option --count/],
  [['doctor', '--nonsense'], /^Unknown option '--nonsense'; see --help\.$/],
  [['doctor', '--json=yes'], /^Option '--json' does not take an argument/],
  [['watch'], /^watch needs the port/],
  [['watch', '65536'], /^watch takes a port from 0 to 65535/],
  [['watch', 'http'], /not 'http'/],
  [['watch', '8080x'], /not '8080x'/],
  [['watch', 'x8080'], /not 'x8080'/],
  [['watch', '-1'], /^Unknown option '-1'/],
  [['watch', '80', '81'], /only one port; remove '81'/],
  [['watch', '80', '--host'], /^Option '--host <value>' argument missing/],
  [['watch', '80', '--count', '0'], /^--count takes a number of at least 1, not '0'/],
  [['watch', '80', '--count', '1x'], /not '1x'/],
  [['watch', '80', '--count', 'x1'], /not 'x1'/],
  [['watch', '80', '--trusted-peers', ' ,'], /^--trusted-peers is empty/],
  [['watch', '80', '--trusted-peers', 'any,10.0.0.1'], /^'trustedPeers' has "any": this is no IP address/],
  [['watch', '80', '--trusted-peers', 'nowhere'], /^'trustedPeers' has "nowhere": this is no IP address/],
  [['watch', '80', '--proxy-protocol'], /^--proxy-protocol needs --trusted-peers, as in --trusted-peers 10\.0\.0\.0\/24, or any/],
  [['watch', '80', ...balancer, '--proxy-protocol', '--toa', 'alibaba'], /^--toa and --proxy-protocol cannot be combined/],
  [['doctor', '--proxy-protocol'], /^doctor has no option --proxy-protocol/],
  [['watch', '80', '--toa', 'alibaba'], /^--toa needs --trusted-peers with a list/],
  [['watch', '80', '--toa', 'nobody'], /^--toa needs --trusted-peers with a list/],
  [['watch', '80', '--toa', 'alibaba', '--trusted-peers', 'any'], /^--toa needs --trusted-peers with a list/],
  [['watch', '80', ...balancer, '--toa', 'nobody'], /^'toa' takes 'alibaba'/],
  [['watch', '80', ...balancer, '--toa', '254/8/IPv4'], /^--toa takes kind\/length\/family\/position.* not '254\/8\/IPv4'/],
  [['watch', '80', ...balancer, '--toa', '254/8/IPv4/first/very'], /^--toa takes kind\/length\/family\/position/],
  [['watch', '80', ...balancer, '--toa', '1/8/IPv4/first'], /'kind' must be the option's number/]
]

t.test('what is not: one sentence', async (t) => {
  for (const [args, says] of wrong) refusesArguments(t, args, says)
})

t.test('the program: code 2 and nothing on stdout', async (t) => {
  for (const [args, says] of [wrong[0], wrong[4], wrong[7]] as typeof wrong) {
    const { code, stdout, stderr } = await run(args)
    t.equal(code, 2)
    t.equal(stdout, '')
    t.match(stderr, /^fastify-real-ip: [^\n]+\.\n$/)
    t.match(stderr.slice('fastify-real-ip: '.length).trimEnd(), says)
  }
})

t.test('--help and --version', async (t) => {
  const help = await run(['--help'])
  t.same([help.code, help.stderr], [0, ''])
  for (const option of ['doctor [--json]', 'watch PORT', '--host', '--trusted-peers', '--proxy-protocol', '--toa', '--count']) t.match(help.stdout, option)
  t.same(await run(['--version']), { code: 0, stdout: `${require('fastify-real-ip/package.json').version}\n`, stderr: '' })
})
