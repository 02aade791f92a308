import { attach, detach } from '../attach/companion'
import type { Attached } from '../attach/attaching'
import { AttachError } from '../attach/pins'
import { type Attachment, status } from '../attach/status'
import type { Bpf } from '../kernel/libc'
import type { AttachArguments, AttachCommand } from './attach-arguments'

export interface Surroundings {
  readonly bpf: Bpf | string
  readonly version: string
  readonly say: (text: string) => void
  readonly note: (text: string) => void
}

/** Runs one of the commands and returns the exit code. Throws an Error whose message is meant for the user. */
export function runAttach (given: AttachArguments, { bpf, version, say, note }: Surroundings): number {
  if (typeof bpf === 'string') throw new AttachError(`${given.command} cannot work here: ${bpf}.`)
  if (given.command === 'status') {
    const attachments = status(bpf, given.bpffs)
    say(given.json ? JSON.stringify({ version, attachments }, null, 2) : drawStatus(attachments))
    return attachments.length > 0 && attachments.every(({ state }) => state === 'attached') ? 0 : 1
  }
  if (given.command === 'detach') {
    detach(bpf, given.from, given.bpffs)
    const from = 'id' in given.from ? `the cgroup ${given.from.id}` : given.from.cgroup
    say(given.json ? JSON.stringify({ version, detached: given.from }) : `Detached from ${from}.`)
    return 0
  }
  try {
    const attached = attach(bpf, { ...given, version })
    if (given.verbose && attached.log !== '') note(attached.log.trimEnd())
    say(given.json ? JSON.stringify({ version, ...withoutLog(attached) }) : drawAttached(given, attached))
    if (attached.isRoot) {
      note('At the root it slows down every process of this host: prefer a slice, which other tools also leave alone.')
    }
    return 0
  } catch (error) {
    if (given.verbose && error instanceof AttachError && error.log !== undefined) note(error.log)
    throw error
  }
}

const withoutLog = ({ log, ...rest }: Attached) => rest

function drawAttached (
  { trustedPeers, formats, getpeername }: AttachCommand, { cgroup, id, replaced }: Attached
): string {
  return [
    `${replaced ? 'Replaced at' : 'Attached to'} ${cgroup} (id ${id}).`,
    `  trusted peers  ${listOf(trustedPeers)}`,
    `  TOA            ${formatsOf(formats)}`,
    `  interface      getsockopt 1348${getpeername ? ' and getpeername' : ''}`,
    'It serves sockets that are created in this cgroup, until detach or a reboot.'
  ].join('\n')
}

export function drawStatus (attachments: readonly Attachment[]): string {
  return attachments.length === 0 ? 'Nothing is attached.' : attachments.map(drawAttachment).join('\n\n')
}

const states: Readonly<Record<Attachment['state'], string>> = {
  attached: 'attached',
  incomplete: 'incomplete: an attach or detach was interrupted; repeat it',
  detached: 'detached by another program; repeat attach',
  gone: 'its cgroup was removed; detach --id removes the rest'
}

function drawAttachment ({ id, state, description, counters, programs }: Attachment): string {
  const rows: Array<[name: string, value: string | undefined]> = [
    ['id', id],
    ['state', states[state]],
    ['trusted peers', description && listOf(description.trustedPeers)],
    ['TOA', description && formatsOf(description.formats)],
    ['interface', description && `getsockopt 1348${description.getpeername ? ' and getpeername' : ''}`],
    ['connections', counters && [
      `${counters.claims} with TOA`,
      `${counters.none} without`,
      `${counters.malformed} malformed`,
      `${counters.strangers} from strangers`,
      ...counters.unstored === 0 ? [] : [`${counters.unstored} lost for lack of memory`]
    ].join(', ')],
    ['programs', Object.entries(programs).map(([name, program]) => `${name} ${program}`).join(', ') || undefined],
    ['attached', description && `${description.attached} by version ${description.version}`]
  ]
  return [description?.cgroup ?? 'Unknown cgroup', ...rows.flatMap(([name, value]) =>
    value === undefined ? [] : [`  ${name.padEnd(13)}  ${value}`])].join('\n')
}

const SHOWN = 10

function listOf (trustedPeers: 'any' | ReadonlyArray<string>): string {
  if (trustedPeers === 'any') return 'any: every client can forge its address'
  const more = trustedPeers.length - SHOWN
  return trustedPeers.slice(0, SHOWN).join(', ') + (more > 0 ? `, and ${more} more` : '')
}

const formatsOf = (formats: AttachCommand['formats']): string =>
  formats.map(({ kind, length, family }) => `${kind}/${length}/${family}`).join(', ')
