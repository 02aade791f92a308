import { inspect, stripVTControlCharacters, styleText } from 'node:util'
import type { FastifyRealIpOptions, RealAddress } from 'fastify-real-ip'
import { wrap } from '../../lib/cli/paint'
import type { Answer, Seen } from './visit'

export { wrap }

/** Colours on terminals that support them. */
export function paint (style: 'bold' | 'dim' | 'green' | 'yellow', text: string): string {
  const colours = text !== '' && process.stdout.isTTY && process.stdout.hasColors()
  return colours ? styleText(style, text, { validateStream: false }) : text
}

/** The width of an ordinary terminal. */
export const COLUMNS = 80

const width = (cell: string): number => stripVTControlCharacters(cell).length
const fits = (lines: readonly string[]): boolean => lines.every((line) => width(line) <= COLUMNS)

/** Columns, each as wide as its widest cell. */
function align (rows: ReadonlyArray<readonly string[]>, gap: string): string[] {
  const widths: number[] = []
  for (const row of rows) row.forEach((cell, i) => { widths[i] = Math.max(widths[i] ?? 0, width(cell)) })
  const pad = (cell: string, i: number) => cell + ' '.repeat((widths[i] as number) - width(cell))
  return rows.map((row) => '  ' + row.map(pad).join(gap).trimEnd())
}

/** The hops of a connection from left to right, or from top to bottom if that is too wide. */
export function drawWay (stations: ReadonlyArray<readonly string[]>): string {
  const height = Math.max(...stations.map(({ length }) => length))
  // Arrows are between their second lines.
  const rows = Array.from({ length: height }, (_, line) => stations.flatMap((station, i) => {
    const text = station[line] ?? ''
    const cell = line === 0 ? paint('bold', text) : text
    return i === 0 ? [cell] : [line === 1 ? '-->' : '', cell]
  }))
  const lines = align(rows, ' ')
  if (fits(lines)) return lines.join('\n')
  const upright = stations.map(([name = '', ...rest], i) =>
    [i === 0 ? '' : '-->', paint('bold', name), rest.join(', ')])
  return align(upright, ' ').join('\n')
}

const headings = (checked: boolean) => [checked ? 'sent by' : 'peer', '', 'TOA says', 'realIp', 'source', 'trust']
const unknown = '-'

/** A row per visit, with a line for its reason; or a line per cell if that is too wide. */
export function drawTable (seen: readonly Seen[], checked: boolean): string {
  const rows = seen.map(({ visit, answer }) => {
    const toa = visit.client ?? 'nothing'
    const who = checked ? visit.by : ''
    if (answer === undefined) {
      return { cells: [unknown, who, toa, unknown, unknown, unknown], reason: 'no client can have it: reset' }
    }
    const { address, source, trust, reason } = answer.realAddress
    return { cells: [senderOf(answer), who, toa, paint('bold', address ?? unknown), source, paintTrust(trust)], reason }
  })
  const names = headings(checked)
  const [heading, ...lines] = align([names.map((name) => paint('dim', name)), ...rows.map(({ cells }) => cells)], '  ')
  if (fits(lines)) {
    const withReasons = rows.flatMap(({ reason }, i) =>
      reason === undefined ? [lines[i]] : [lines[i], `      reason: ${reason}`])
    return [heading, ...withReasons].join('\n')
  }
  return rows.map(({ cells, reason = unknown }) => {
    const entries = [...cells, reason].map((cell, i) => [paint('dim', [...names, 'reason'][i] ?? ''), cell])
    return align(entries.filter(([, cell]) => cell !== ''), '  ').join('\n')
  }).join('\n\n')
}

/** The options as a user writes them. */
export function drawOptions (options: FastifyRealIpOptions): string {
  const written = Object.entries(options).map(([name, value]) =>
    `${name}: ${inspect(value, { breakLength: Infinity }).replaceAll('[ ', '[').replaceAll(' ]', ']')}`)
  if (written.length === 0) return '  app.register(realIp)'
  const line = `  app.register(realIp, { ${written.join(', ')} })`
  if (line.length <= COLUMNS) return line
  return `  app.register(realIp, {\n${written.map((entry) => `    ${entry}`).join(',\n')}\n  })`
}

/** A line of JSON, wrapped between its members. */
export function drawJson (line: string): string {
  const lines: string[] = []
  for (const member of line.split(/(?<=,)(?=")/)) {
    const last = lines.at(-1)
    if (last === undefined || last.length + member.length > COLUMNS - 2) lines.push(member)
    else lines[lines.length - 1] = last + member
  }
  return lines.map((text) => `  ${paint('dim', text)}`).join('\n')
}

/** One line for a request of the user's own. */
export function drawRequest (method: string, url: string, { address, source, trust, reason }: RealAddress): string {
  return `  ${method} ${url}  realIp ${paint('bold', address ?? unknown)}  source ${source}` +
    `  trust ${paintTrust(trust)}` +
    (reason === undefined ? '' : `  reason ${reason}`)
}

const senderOf = ({ realAddress, ip }: Answer) => realAddress.transportPeer?.address ?? ip

function paintTrust (trust: RealAddress['trust']): string {
  return paint(trust === 'trusted' ? 'green' : 'yellow', trust)
}
