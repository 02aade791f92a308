import type { Results } from './figure'
import { format, isMet, type Row, whyNotQuotable } from './report'

// Generates docs/performance.md and the README's sentence from the results of a complete run.

const PLUGIN = 'fastify-real-ip'
/** Sentences, each with the row that it is about. */
const SENTENCE: ReadonlyArray<readonly [figure: string, row: string, where: string]> = [
  ['keep-alive', PLUGIN, 'a request on a kept connection'],
  ['one-shot', PLUGIN, 'one connection per request']
]

export function writePage (results: Results): string {
  const { node, kernel, machine, pinned, figures } = results
  return `# Performance

<!-- Generated from bench/results.json by npm run docs:performance. -->

What \`npm run bench\` measured: ${machine}, Linux ${kernel}, Node.js ${node},
${pinned
    ? 'server and client on a core each'
    : 'server and client sharing their cores'}. Absolute times say nothing about another machine; ratios within one run say
more. Each is a median with its 95 % interval, a bootstrap over fresh processes.

- Slices of work are interleaved forth and back, in an order that differs each time.
- The control is the same thing against itself: the run's own noise. Where it is further than 1.5 % (10 B) from the truth,
  the figure is not quoted.
- A target is held against the upper end of the interval where it says so, else against the median.
- \`npm run bench -- --only NAME\` repeats one figure, with \`--record\` in place of the one below: each is of one run, on its date.

![${altOf(results)}](../bench/chart.svg)

${figures.map(({ name, date, title, rows }) => `## \`${name}\`, ${date}

${NOTES[name] === undefined ? '' : `${NOTES[name]}\n\n`}${writeTable(title, rows)}`).join('\n')}`
}

const NOTES: Readonly<Record<string, string>> = {
  'keep-alive': `This figure and the next four: CPU of the server's process per request, \`process.cpuUsage()\`, over what plain
Fastify takes for the same requests in the same run, in 100 pairs or more. That is measured twice: all others are compared
to the mean of both, and the control is one ÷ the other. Each handler reads its address and answers with it; that of plain
Fastify answers with a constant of the same length. Every request has an \`X-Forwarded-For\`, so that those who read it find
one. A connection is read once: sources differ where there is one for each request. The clients come from an address that is
not loopback. \`'vtoa'\` is the kernel lab's stand-in, compared to plain Fastify in the same kernel; \`'nat64'\` is not shown: it
makes the same system call as \`'vtoa'\`.
The servers run with
\`--min-semi-space-size=16\`: else V8 gives some of them a young generation a fraction the size of the others'; and with
\`--no-memory-reducer\`: else it collects where a server of any kind idles for 8 seconds before its first request, and some
of them then pay for each \`process.nextTick()\` for good, a fifth of a request.
A server that has an \`onRequest\` hook can take less than one without, whatever the hook does: its own row shows what of a
plugin's figure that is.
Rows with ÷ compare two of the same run: below 1 the plugin costs less. What two servers do differently for a kept connection's
request can be less than a tenth of a microsecond, and drown in these intervals: \`resolve\` has that part alone.`,
  resolve: `In a hot loop, one request after the other of one connection: where servers of \`keep-alive\` differ, without most of what they have
in common. The headers are parsed already, which is in favour of those who read them.`,
  read: `Node's own is measured twice here too. What Node.js does for its first \`remoteAddress\` is one system call and the making
of its answer; the plugin's own part is one through koffi, an object, and its being remembered. "The least that a WeakMap
takes" is those with a WeakMap, without sources, reasons or counters; the plugin remembers in a private field of the socket,
which nobody else sees either, and which goes with it. 1348 takes the kernel longer than getpeername even where it fails, and
where it answers here an eBPF program does, which stands in for vtoa in both calls: its part is what that call takes longer
with it than without, and \`syscall\` shows how much of it goes before the program answers anything.`,
  policy: `A policy needs who sent the SYN, which is one more system call. "Alone" is that call, so what the target leaves for
all else is the difference.`,
  open: `Each new connection carries one request. What \`plain\` takes more is Node.js and Fastify themselves, most of it garbage
collection; the target is about what the plugin makes of that.`,
  idle: `After a collection. The first 3,000 connections, which make what is made once, are not counted as
heap. RSS is what the process grew by since it listened, as a ratio: it is too coarse for single bytes.`,
  startup: 'A fresh process each time; what Node.js takes to start is not in it. ' +
    'The request is sent by the process itself.',
  syscall: `The C loop is the physical limit: the same call on the same socket, in the same process. 1348 is answered by an eBPF program
that stands in for vtoa: what 1349 takes longer beside it than 1348 without it, the kernel and the program take before it
answers anything.`
}

function writeTable (title: string, rows: readonly Row[]): string {
  const controlOf = ({ control, unit }: Row) => control === undefined ? '' : format(control, unit)
  const cells = rows.map((row) => [row.name, valueOf(row), controlOf(row), targetOf(row), absoluteOf(row)])
  return [
    `| ${title} | median [95 % interval] | control | target | absolute, median |`,
    '|---|---|---|---|---|',
    ...cells.map((row) => `| ${row.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`),
    ''
  ].join('\n')
}

function valueOf (row: Row): string {
  if (row.value === undefined) return `not shown: ${row.notShown}`
  const why = whyNotQuotable(row)
  return why === undefined ? format(row.value, row.unit) : `not quotable: ${why}`
}

function targetOf (row: Row): string {
  const { target, judgedBy, unit, value } = row
  if (target === undefined) return ''
  const limit = `≤ ${target}${unit === 'B' ? ' B' : ''}${judgedBy === 'upper end' ? ' (upper end)' : ''}`
  if (value === undefined || whyNotQuotable(row) !== undefined) return `${limit}: not judged`
  return `${limit}: ${isMet(row) ? 'met' : '**missed**'}`
}

/** `{ plainMicroseconds: 12.34 }` as 'plain microseconds 12.3'; empty if the row cannot be quoted. */
function absoluteOf (row: Row): string {
  if (row.value === undefined || whyNotQuotable(row) !== undefined) return ''
  return Object.entries(row.absolute ?? {}).map(([name, value]) =>
    `${name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)} ${Number(value.toPrecision(3))}`).join(', ')
}

export const rowOf = ({ figures }: Results, figure: string, row: string) =>
  figures.find(({ name }) => name === figure)?.rows.find(({ name }) => name === row)

export function writeReadmeBlock (results: Results): string {
  return `
## What it costs

![${altOf(results)}](bench/chart.svg)

${altOf(results)}.
Everything else, with the controls and what missed its target: [docs/performance.md](docs/performance.md).

`
}

function altOf (results: Results): string {
  const parts = SENTENCE.map(([figure, name, where]) => {
    const row = rowOf(results, figure, name)
    return `${where} ${row === undefined ? 'not shown' : valueOf(row)}`
  })
  return `Server CPU ÷ plain Fastify, median [95 % interval]: ${parts.join(', ')}`
}
