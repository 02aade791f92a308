import { parseArgs } from 'node:util'
import type { FastifyRealIpOptions, ToaFormat } from '../../types'
import { checkOptions, type Options } from '../options/options'
import { type AttachArguments, attachHelp, isAttachCommand, readAttachArguments } from './attach-arguments'
import { splitPeers, UsageError, withoutName } from './usage-error'

export { UsageError }

export type Arguments = 'help' | 'version' | DoctorArguments | WatchArguments | AttachArguments

export interface DoctorArguments {
  readonly command: 'doctor'
  readonly json: boolean
}

export interface WatchArguments {
  readonly command: 'watch'
  readonly port: number
  readonly host: string | undefined
  /** The options of the plugin. */
  readonly options: Options
  /** Exits after this many connections; `undefined`: never. */
  readonly count: number | undefined
  readonly json: boolean
}

export const help = `Checks whether this machine can determine clients' addresses; shows what a balancer really sends.

  fastify-real-ip doctor [--json]
      Checks this machine. Exit code 0: a source works that does not require trustedPeers; 1: none does.

  fastify-real-ip watch PORT [options]
      Listens on PORT and prints for each connection: who sent it, the TCP options of its SYN, the answer of
      each source, and what the plugin would decide. Press Ctrl-C to exit.

      --host HOST             the address to listen on; default: all addresses
      --trusted-peers LIST    addresses and ranges, separated by commas, or any
      --proxy-protocol        each connection of a trusted peer begins with a PROXY header, which is printed
      --toa FORMAT            what the balancer writes on the SYN: alibaba, ucloud, tencent, dpvs, or
                              kind/length/family/position, as in 254/8/IPv4/first,253/20/IPv6/first
      --count N               exits after N connections
      --json                  one line of JSON for each connection

${attachHelp}
  fastify-real-ip --help | --version

Exit code 2: invalid arguments.
`

const watchOnly = ['host', 'trusted-peers', 'proxy-protocol', 'toa', 'count'] as const
const attachOnly = ['cgroup', 'id', 'bpffs', 'getpeername', 'verbose'] as const

/** Throws a UsageError. */
export function readArguments (given: readonly string[]): Arguments {
  const { values, positionals } = parse(given)
  if (values.help === true) return 'help'
  if (values.version === true) return 'version'
  const [command, port, ...rest] = positionals
  const json = values.json === true
  if (isAttachCommand(command)) return readAttachArguments(command, values, positionals.slice(1))
  if (command === 'doctor') {
    const foreign = [...watchOnly, ...attachOnly].find((name) => values[name] !== undefined)
    if (foreign !== undefined) throw new UsageError(`doctor has no option --${foreign}; it takes only --json.`)
    if (port !== undefined) throw new UsageError(`doctor takes no argument '${port}'.`)
    return { command, json }
  }
  if (command !== 'watch') {
    const what = command === undefined ? 'A command is missing' : `There is no command '${command}'`
    throw new UsageError(`${what}: write doctor, watch PORT, attach, detach, status, or --help.`)
  }
  const foreign = attachOnly.find((name) => values[name] !== undefined)
  if (foreign !== undefined) throw new UsageError(`watch has no option --${foreign}; see --help.`)
  if (port === undefined) throw new UsageError('watch needs the port to listen on, as in watch 8080.')
  if (!/^\d{1,5}$/.test(port) || Number(port) > 65535) {
    throw new UsageError(`watch takes a port from 0 to 65535 (0: any free port), not '${port}'.`)
  }
  if (rest.length > 0) throw new UsageError(`watch takes only one port; remove '${rest[0]}'.`)
  const { count } = values
  if (count !== undefined && !/^[1-9]\d*$/.test(count)) {
    throw new UsageError(`--count takes a number of at least 1, not '${count}'.`)
  }
  return {
    command,
    port: Number(port),
    host: values.host,
    options: readOptions(values['trusted-peers'], values.toa, values['proxy-protocol'] === true),
    count: count === undefined ? undefined : Number(count),
    json
  }
}

function parse (given: readonly string[]) {
  try {
    return parseArgs({
      args: [...given],
      allowPositionals: true,
      options: {
        help: { type: 'boolean', short: 'h' },
        version: { type: 'boolean', short: 'v' },
        json: { type: 'boolean' },
        host: { type: 'string' },
        'trusted-peers': { type: 'string' },
        'proxy-protocol': { type: 'boolean' },
        toa: { type: 'string' },
        count: { type: 'string' },
        cgroup: { type: 'string' },
        id: { type: 'string' },
        bpffs: { type: 'string' },
        getpeername: { type: 'boolean' },
        verbose: { type: 'boolean' }
      }
    })
  } catch (error) {
    // Its first sentence is enough.
    const [sentence] = (error as Error).message.split(/\.\s/, 1)
    throw new UsageError(`${sentence}; see --help.`)
  }
}

function readOptions (trustedPeers: string | undefined, toa: string | undefined, proxyProtocol: boolean): Options {
  const given: FastifyRealIpOptions = { sources: proxyProtocol ? ['proxy-protocol'] : 'auto' }
  if (proxyProtocol && trustedPeers === undefined) {
    throw new UsageError('--proxy-protocol needs --trusted-peers, as in --trusted-peers 10.0.0.0/24, or any: ' +
      'headers are read only from trusted peers.')
  }
  if (proxyProtocol && toa !== undefined) {
    throw new UsageError('--toa and --proxy-protocol cannot be combined: a balancer writes only one of them.')
  }
  if (trustedPeers !== undefined) given.trustedPeers = splitPeers(trustedPeers)
  if (toa !== undefined) {
    if (!Array.isArray(given.trustedPeers)) {
      throw new UsageError('--toa needs --trusted-peers with a list, as in --trusted-peers 10.0.0.0/24: ' +
        'clients can write TOA on their SYN too.')
    }
    given.toa = readToa(toa) as ToaFormat[]
  }
  try {
    return checkOptions(given)
  } catch (error) {
    throw new UsageError(`${withoutName((error as Error).message)}.`)
  }
}

/** The name of a preset, or formats, which checkOptions() checks. */
function readToa (text: string): unknown {
  if (!text.includes('/')) return text
  return text.split(',').map((format) => {
    const [kind, length, family, position, ...rest] = format.trim().split('/')
    if (position === undefined || rest.length > 0) {
      throw new UsageError(`--toa takes kind/length/family/position, as in 254/8/IPv4/first, not '${format}'.`)
    }
    return { kind: Number(kind), length: Number(length), family: family?.replace(/^ip/i, 'IP'), position }
  })
}
