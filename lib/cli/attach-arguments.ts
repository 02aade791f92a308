import { compileRanges } from '../address/ranges'
import { documentFormats, type Format, FORMATS_MAX } from '../attach/config'
import { BPFFS } from '../attach/pins'
import { leastLength, toaPresets } from '../options/toa'
import { splitPeers, UsageError, withoutName } from './usage-error'

export type AttachArguments = AttachCommand | DetachCommand | StatusCommand

interface Common {
  readonly json: boolean
  readonly bpffs: string
}

export interface AttachCommand extends Common {
  readonly command: 'attach'
  readonly cgroup: string
  readonly trustedPeers: 'any' | ReadonlyArray<string>
  readonly formats: ReadonlyArray<Format>
  readonly getpeername: boolean
  readonly verbose: boolean
}

export interface DetachCommand extends Common {
  readonly command: 'detach'
  readonly from: { readonly cgroup: string } | { readonly id: string }
}

export interface StatusCommand extends Common {
  readonly command: 'status'
}

export const attachHelp = `  fastify-real-ip attach --cgroup PATH --trusted-peers LIST [options]
      Provides the vtoa interface, getsockopt 1348, to the processes of a cgroup (v2), on Linux 5.10 or later.
      Needs root. Slows down every getsockopt(2) of that cgroup. Repeat it to replace list and formats without a gap.

      --cgroup PATH           the cgroup's directory, as in /sys/fs/cgroup/system.slice
      --trusted-peers LIST    whose TOA is read: addresses and ranges, separated by commas, or any
      --toa FORMAT            alibaba, ucloud, tencent, dpvs, or kind/length/family; default 254/8/IPv4,253/20/IPv6
      --getpeername           getpeername(2) and accept(2) return the client too
      --bpffs PATH            the mount point of a BPF file system, default ${BPFFS}
      --verbose               prints the log of the kernel's verifier
      --json

  fastify-real-ip detach --cgroup PATH | --id N [--bpffs PATH] [--json]
      Undoes attach. If the cgroup was removed, use its id N, which status prints.

  fastify-real-ip status [--bpffs PATH] [--json]
      Prints all attachments and their counters. Exit code 1: nothing is attached, or not all attachments work.
`

const options = {
  attach: ['cgroup', 'trusted-peers', 'toa', 'getpeername', 'bpffs', 'verbose', 'json'],
  detach: ['cgroup', 'id', 'bpffs', 'json'],
  status: ['bpffs', 'json']
} as const

type Values = Readonly<Record<string, string | boolean | undefined>>

export function isAttachCommand (command: string | undefined): command is keyof typeof options {
  return command !== undefined && Object.hasOwn(options, command)
}

/** Throws a UsageError. */
export function readAttachArguments (
  command: keyof typeof options, values: Values, rest: readonly string[]
): AttachArguments {
  const known: readonly string[] = options[command]
  const foreign = Object.keys(values).find((name) => values[name] !== undefined && !known.includes(name))
  if (foreign !== undefined) {
    throw new UsageError(
      `${command} has no option --${foreign}; it takes ${known.map((name) => `--${name}`).join(', ')}.`)
  }
  if (rest.length > 0) {
    throw new UsageError(`${command} takes no argument '${rest[0]}': write the cgroup as --cgroup PATH.`)
  }
  const text = (name: string) => values[name] as string | undefined
  const common = { json: values.json === true, bpffs: text('bpffs') ?? BPFFS }
  const cgroup = text('cgroup')
  if (command === 'status') return { command, ...common }
  if (command === 'detach') {
    const id = text('id')
    if ((cgroup === undefined) === (id === undefined)) {
      throw new UsageError('detach needs either --cgroup PATH or --id N.')
    }
    if (id !== undefined && !/^\d+$/.test(id)) {
      throw new UsageError(`--id takes a number that status prints, not '${id}'.`)
    }
    return { command, ...common, from: cgroup === undefined ? { id: id as string } : { cgroup } }
  }
  if (cgroup === undefined) {
    throw new UsageError('attach needs --cgroup PATH, as in --cgroup /sys/fs/cgroup/system.slice.')
  }
  return {
    command,
    ...common,
    cgroup,
    trustedPeers: readTrustedPeers(text('trusted-peers')),
    formats: readFormats(text('toa')),
    getpeername: values.getpeername === true,
    verbose: values.verbose === true
  }
}

function readTrustedPeers (given: string | undefined): AttachCommand['trustedPeers'] {
  if (given === undefined) {
    throw new UsageError('attach needs --trusted-peers: the addresses and ranges of the balancers, or any, with ' +
      'which every client can forge its address.')
  }
  const list = splitPeers(given)
  if (list === 'any') return list
  try {
    compileRanges(list, '--trusted-peers')
  } catch (error) {
    throw new UsageError(`${withoutName((error as Error).message)}.`)
  }
  return list
}

function readFormats (given: string | undefined): ReadonlyArray<Format> {
  if (given === undefined) return documentFormats
  if (Object.hasOwn(toaPresets, given)) {
    const { formats } = toaPresets[given as keyof typeof toaPresets]
    return formats.map(({ kind, length, family }) => ({ kind, length, family }))
  }
  const formats = given.split(',').map((text) => readFormat(text.trim()))
  if (formats.length > FORMATS_MAX) throw new UsageError(`--toa takes at most ${FORMATS_MAX} formats.`)
  return formats
}

function readFormat (text: string): Format {
  const wrong = (why: string) => new UsageError(`--toa takes ${Object.keys(toaPresets).join(', ')}, or ` +
    `kind/length/family, as in 254/8/IPv4, not '${text}'${why}.`)
  const [, kind, length, version] =
    /^(\d{1,3})\/(\d{1,2})\/ipv([46])$/i.exec(text)?.map(Number) as [number, number, number, 4 | 6] | undefined ?? []
  if (kind === undefined || length === undefined) throw wrong('')
  const family = version === 4 ? 'IPv4' : 'IPv6'
  const least = leastLength[family]
  if (kind < 2 || kind > 254) throw wrong(': the kind must be 2 to 254')
  if (length < least || length > 40) {
    throw wrong(`: the length is ${least} to 40 for ${family}, including both header bytes`)
  }
  return { kind, length, family }
}
