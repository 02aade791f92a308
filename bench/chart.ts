import type { Results } from './figure'
import { formatNumber, type Row, whyNotQuotable } from './report'

// A line per resolver: its median with the interval. The panel has its own background, to be readable on any page.

const PANELS = ['keep-alive', 'one-shot']
const WIDTH = 860
const LABELS = 360
const VALUES = 90
const LINE = 22
const HEAD = 44
const MARGIN = 16
const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2]
const TICKS = 8

const STYLE = `
    .panel { fill: #ffffff; stroke: #d0d7de }
    text { fill: #1f2328; font: 13px system-ui, sans-serif }
    .title { font-weight: 600 }
    .faint { fill: #59636e; font-size: 11px }
    .grid { stroke: #d0d7de }
    .one { stroke: #59636e }
    .noise { fill: #818b98; opacity: 0.2 }
    .ours { fill: #0969da; stroke: #0969da }
    .other { fill: #818b98; stroke: #818b98 }
    @media (prefers-color-scheme: dark) {
      .panel { fill: #0d1117; stroke: #3d444d }
      text { fill: #f0f6fc }
      .faint { fill: #9198a1 }
      .grid { stroke: #3d444d }
      .one { stroke: #9198a1 }
      .ours { fill: #4493f8; stroke: #4493f8 }
    }
`

export function drawChart ({ figures, node, machine }: Results): string {
  const panels = PANELS.flatMap((panel) => figures.filter(({ name }) => name === panel))
    .map(({ title, date, rows }) =>
      ({ title: `${title}, ${date}`, rows: rows.filter(({ name }) => !name.includes(' ÷ ')) }))
  const scale = createScale(panels.flatMap(({ rows }) => rows))
  const drawn: string[] = []
  let y = MARGIN
  for (const { title, rows } of panels) {
    drawn.push(...drawPanel(title, rows, y, scale))
    y += HEAD + rows.length * LINE + MARGIN
  }
  const notes = [
    `${machine}, Node.js ${node} with its default flags.`,
    'The band is the control, plain Fastify ÷ itself. With any hook a server can be below 1, whatever the hook does.'
  ]
  const height = y + LINE * notes.length
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">
  <title>Server CPU per request ÷ plain Fastify</title>
  <style>${STYLE}  </style>
  <rect class="panel" x="0.5" y="0.5" width="${WIDTH - 1}" height="${height - 1}" rx="6"/>
${drawn.map((line) => `  ${line}`).join('\n')}
${notes.map((note, i) => `  <text class="faint" x="${MARGIN}" y="${y + 6 + i * LINE}">${escape(note)}</text>`).join('\n')}
</svg>
`
}

interface Scale {
  readonly ticks: readonly number[]
  x (ratio: number): number
}

function createScale (rows: readonly Row[]): Scale {
  const ends = rows.filter(isDrawn)
    .flatMap(({ value, control }) => [value?.low, value?.high, control?.low, control?.high] as number[])
  const low = Math.min(1, ...ends)
  const high = Math.max(1.1, ...ends)
  const step = STEPS.find((step) => (high - low) / step <= TICKS) ?? high - low
  const first = Math.floor(low / step)
  const last = Math.ceil(high / step)
  const ticks = Array.from({ length: last - first + 1 }, (_, i) => (first + i) * step)
  const left = MARGIN + LABELS
  const right = WIDTH - MARGIN - VALUES
  return { ticks, x: (ratio) => left + (ratio - first * step) / ((last - first) * step) * (right - left) }
}

const isDrawn = (row: Row) => row.value !== undefined && whyNotQuotable(row) === undefined

function drawPanel (title: string, rows: readonly Row[], top: number, { ticks, x }: Scale): string[] {
  const bottom = top + HEAD + rows.length * LINE - 6
  const lines = [`<text class="title" x="${MARGIN}" y="${top + 14}">${escape(`${title[0]?.toUpperCase()}${title.slice(1)}`)}</text>`]
  for (const tick of ticks) {
    lines.push(
      `<text class="faint" x="${at(x(tick))}" y="${top + 34}" text-anchor="middle">${tick.toFixed(2)}</text>`,
      `<line class="${Math.abs(tick - 1) < 1e-9 ? 'one' : 'grid'}" x1="${at(x(tick))}" x2="${at(x(tick))}" y1="${top + HEAD - 4}" y2="${bottom}"/>`)
  }
  const control = rows.find(isDrawn)?.control
  if (control !== undefined) {
    lines.push(`<rect class="noise" x="${at(x(control.low))}" y="${top + HEAD - 4}" width="${at(x(control.high) - x(control.low))}" height="${bottom - top - HEAD + 4}"/>`)
  }
  for (const [i, row] of rows.entries()) {
    const y = top + HEAD + i * LINE + 8
    const { name } = row
    lines.push(`<text x="${MARGIN}" y="${y + 4}">${escape(name)}</text>`)
    if (row.value === undefined || !isDrawn(row)) {
      lines.push(`<text class="faint" x="${at(x(1) + 8)}" y="${y + 4}">${row.value === undefined ? 'not shown' : escape(`not quotable: ${whyNotQuotable(row)}`)}</text>`)
      continue
    }
    const { median, low, high } = row.value
    const mark = name.startsWith('fastify-real-ip') ? 'ours' : 'other'
    lines.push(
      `<line class="${mark}" stroke-width="2" x1="${at(x(low))}" x2="${at(x(high))}" y1="${y}" y2="${y}"/>`,
      `<circle class="${mark}" cx="${at(x(median))}" cy="${y}" r="4"/>`,
      `<text x="${WIDTH - MARGIN}" y="${y + 4}" text-anchor="end">${median < 1 ? 'not above 1' : formatNumber(median, undefined)}</text>`)
  }
  return lines
}

const at = (pixels: number) => pixels.toFixed(1)
const escape = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')
