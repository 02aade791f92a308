import type { KernelSource } from '../../types'
import { attachCommand } from './attach-finding'
import { answers, judgeAll, vtoaCommand, WATCH } from './findings'
import type { Machine } from './machine'
import { paint, type Style, type Terminal, wrap } from './paint'
import type { Verdict } from './verdict'

export interface Finding extends Verdict {
  readonly name: string
}

export interface Report {
  /** Whether a source works without a decision about trust. */
  readonly works: boolean
  /** The sources that do. */
  readonly sources: ReadonlyArray<KernelSource>
  readonly message: string
  readonly findings: ReadonlyArray<Finding>
}

/** Judges the state of a machine. Pure. */
export function diagnose (machine: Machine): Report {
  const { modules, kernel } = machine
  const asked = typeof kernel === 'string' ? undefined : kernel
  const sources: KernelSource[] = []
  if (asked !== undefined) {
    if (answers(asked, 1348)) sources.push('vtoa')
    if (answers(asked, 4096)) sources.push('nat64')
    // Without a module getpeername returns only the transport peer.
    if (modules?.vtoa === true || modules?.toa === true) sources.push('getpeername')
  }
  const works = sources.length > 0
  return {
    works,
    sources,
    message: conclude(machine, sources),
    findings: Object.entries(judgeAll(machine, works)).map(([name, verdict]) => ({ name, ...verdict }))
  }
}

function conclude (machine: Machine, sources: ReadonlyArray<KernelSource>): string {
  const { kernel } = machine
  if (sources.length > 0) {
    return `Yes: ${sources.join(', ')}. List your balancers in 'trustedPeers': others who reach the port can forge ` +
      'addresses.'
  }
  if (typeof kernel === 'string') return `No: ${kernel}.`
  const command = vtoaCommand(machine)
  if (command !== undefined) return `No: vtoa does not answer. ${command}`
  const attach = attachCommand(machine)
  return "No: no kernel module gives a client's address. " + (attach === undefined
    ? "Load your balancer's toa.ko"
    : `Attach to your service's cgroup (${attach}); or load your balancer's toa.ko`) +
    "; or, if the balancer writes TOA on the SYN, use 'saved-syn' with 'toa' and a list of 'trustedPeers'. To see " +
      `what it sends: ${WATCH}`
}

const styles: Record<Finding['state'], Style> = { good: 'green', bad: 'red', unknown: 'yellow', 'n/a': 'dim' }

/** Formats the report as text, conclusion first, wrapped to `columns` where possible. */
export function drawReport ({ works, message, findings }: Report, { colours, columns = Infinity }: Terminal): string {
  const width = Math.max(...findings.map(({ name }) => name.length))
  const margin = width + 13
  const indent = (text: string) => wrap(text, columns - margin).join(`\n${' '.repeat(margin)}`)
  const lines = findings.map(({ name, state, message, fix }) =>
    `  ${paint(styles[state], state.padEnd(7), colours)}  ${name.padEnd(width)}  ${indent(message)}` +
    (fix === undefined ? '' : `\n${' '.repeat(margin)}-> ${paint('bold', fix, colours)}`))
  const verdict = wrap(message, columns).map((line) => paint(works ? 'green' : 'red', line, colours))
  return [...verdict, '', ...lines].join('\n')
}
