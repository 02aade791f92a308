import { styleText } from 'node:util'
import type { RealAddress } from 'fastify-real-ip'
import type { Seen } from './visit'

/** Coloured on a terminal that has colours, and nowhere else. */
export function paint (style: 'bold' | 'dim' | 'green' | 'yellow', text: string): string {
  return text !== '' && process.stdout.isTTY && process.stdout.hasColors() ? styleText(style, text, { validateStream: false }) : text
}

/** Columns, each as wide as its widest cell. A cell may be painted: only what is left of it counts. */
function align (rows: ReadonlyArray<readonly string[]>, gap: string): string[] {
  const width = (cell: string) => cell.replace(/\x1b\[\d+m/g, '').length // eslint-disable-line no-control-regex
  const widths: number[] = []
  for (const row of rows) row.forEach((cell, i) => { widths[i] = Math.max(widths[i] ?? 0, width(cell)) })
  return rows.map((row) => '  ' + row.map((cell, i) => cell + ' '.repeat((widths[i] as number) - width(cell))).join(gap).trimEnd())
}

/** The stations of a connection's way from left to right, with arrows between their second lines. */
export function drawWay (stations: ReadonlyArray<readonly string[]>): string {
  const height = Math.max(...stations.map(({ length }) => length))
  const rows = Array.from({ length: height }, (_, line) => stations.flatMap((station, i) => {
    const text = station[line] ?? ''
    const cell = line === 0 ? paint('bold', text) : text
    return i === 0 ? [cell] : [line === 1 ? '-->' : '', cell]
  }))
  return align(rows, ' ').join('\n')
}

const headings = (checked: boolean) => [checked ? 'sent by' : 'peer', '', 'TOA says', 'realIp', 'source', 'trust', 'reason']
const unknown = '-'

/** A row for each visit. */
export function drawTable (seen: readonly Seen[], checked: boolean): string {
  const rows = seen.map(({ visit, answer }) => {
    const toa = visit.client ?? 'nothing'
    const who = checked ? visit.by : ''
    if (answer === undefined) return [unknown, who, toa, unknown, unknown, unknown, 'no client can have it: reset']
    const { address, source, trust, reason } = answer.realAddress
    return [senderOf(answer), who, toa, paint('bold', address ?? unknown), source, paintTrust(trust), reason ?? '']
  })
  return align([headings(checked).map((heading) => paint('dim', heading)), ...rows], '  ').join('\n')
}

/** One line for a request of the user's own. */
export function drawRequest (method: string, url: string, { address, source, trust, reason }: RealAddress): string {
  return `  ${method} ${url}  realIp ${paint('bold', address ?? unknown)}  source ${source}  trust ${paintTrust(trust)}` +
    (reason === undefined ? '' : `  reason ${reason}`)
}

const senderOf = ({ realAddress, ip }: { realAddress: RealAddress, ip: string }) => realAddress.transportPeer?.address ?? ip

function paintTrust (trust: RealAddress['trust']): string {
  return paint(trust === 'trusted' ? 'green' : 'yellow', trust)
}
