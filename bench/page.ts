import type { Results } from './figure'
import { format, isMet, type Row, whyNotQuotable } from './report'
import type { Estimate } from './statistics'

// Generates docs/performance.md and the README's sentence from what was recorded.

const PLUGIN = 'fastify-real-ip'
const LIST = `${PLUGIN}, trustedPeers`
const PLAIN = 'plain Fastify'
const FASTIFY_LIST = '`request.ip` with a `trustProxy` list instead of the plugin'
const NO_HEADER = 'the same plugin without a header'
type Question = readonly [asked: string, figure: string, row: string, than?: string]

/** What the README tells, in a sentence each. */
const SENTENCE: readonly Question[] = [
  ['a request on a kept connection', 'keep-alive', PLUGIN],
  ['one connection per request', 'one-shot', PLUGIN]
]

const QUESTIONS: readonly Question[] = [
  ['a request on a kept connection', 'keep-alive', PLUGIN],
  ['the same, with `trustedPeers`', 'keep-alive', LIST],
  [`the same, ${FASTIFY_LIST}`, 'keep-alive', 'request.ip, trustProxy: list'],
  ['a request behind an HTTP proxy, the client from `X-Forwarded-For`', 'proxied', `${PLUGIN}, forwarded`],
  [`the same, ${FASTIFY_LIST}`, 'proxied', 'request.ip, trustProxy: list'],
  ['a new connection per request', 'one-shot', PLUGIN],
  ['the same, with `trustedPeers`', 'one-shot', LIST],
  ['the same, `request.ip` with `trustProxy: true` instead of the plugin', 'one-shot', 'request.ip, trustProxy: true'],
  ['a new connection per request, from a loopback address', 'one-shot-loopback', PLUGIN],
  ['the same, with `trustedPeers`', 'one-shot-loopback', `${LIST}: loopback`],
  ['a request on a kept connection, of a server that idled for 10 s before its first', 'idle-start', PLUGIN],
  ['the same, with `trustedPeers`', 'idle-start', LIST],
  ['a TLS handshake and its request', 'tls', PLUGIN],
  ['the same, with `trustedPeers`', 'tls', LIST],
  ['an HTTP/2 request', 'http2', PLUGIN],
  ['the same, with `trustedPeers`', 'http2', LIST],
  ['a connection with a PROXY header in its first segment', 'proxy',
    'a header of version 2, in the first segment', NO_HEADER],
  ['the same, where the header comes later', 'proxy', 'a header of version 2, held: in a later segment', NO_HEADER],
  ['the same header in its first segment, read by findhit-proxywrap', 'proxy',
    'findhit-proxywrap, a header of version 1, in the first segment', NO_HEADER],
  ['reading the address of a connection', 'read', 'IPv4, 1348 skipped, with text', "Node's first `remoteAddress`"],
  ['memory of an idle connection', 'idle', 'heap, IPv4, never asked'],
  ['the same, with `trustedPeers`', 'idle', 'heap, IPv4, trustedPeers, never asked'],
  ['start-up, to the first answer', 'startup', `elapsed: ${PLUGIN}`],
  ['a connection with TOA where `attach` runs', 'attach', 'a connection with TOA, with ÷ without', 'without `attach`']
]

export function writePage (results: Results): string {
  const { node, kernel, machine, pinned, figures } = results
  return `# Performance

<!-- Generated from bench/results.json by npm run docs:performance. -->

Measured by \`npm run bench\` with Node's default flags: ${machine}, Linux ${kernel}, Node.js ${node}.

| what | costs | measured |
|---|---|---|
${QUESTIONS.map((question) => writeAnswer(results, question)).join('\n')}

Where nothing else is said, the measure is CPU of the server's process. A ratio is a median with its 95 % interval.

![${altOf(results)}](../bench/chart.svg)

## How it is measured

- Times are ratios within one run, ${pinned ? 'server and client on a core each' : 'server and client sharing their cores'}.
  Absolute times say little about another machine.
- A session starts a fresh process for each server. Their slices of work are interleaved forth and back, in random order.
  A session gives one value; the interval is a bootstrap over sessions, so that the luck of a process shows in it.
- The control is the same thing against itself: the noise of the run. Where it is further than 1.5 % (10 B) from the truth,
  the figure is not quoted.
- "No difference seen": the interval contains 1 (0 B), or the median lies within that of the control.
- A target is held against the upper end of the interval where it says so, else against the median.
- \`npm run bench -- --only NAME\` repeats one figure. With \`--record\` it replaces the one below: each has its date.

For the figures per request, CPU is \`process.cpuUsage()\`. Plain Fastify is measured twice: all others are compared to the
mean of both, and the control is one ÷ the other. Each handler reads its address and answers with it; that of plain Fastify
answers with a constant. Every request has an \`X-Forwarded-For\`, so that those who read it find one. The clients come from
an address that is not loopback, except where it says so. The ninth decile of the ratios of all sessions, beside that of the
controls, shows whether some processes are slow for as long as they run.

A server with an \`onRequest\` hook can take less CPU than one without, whatever the hook does: a row has such a hook alone.
A ratio below 1 is no gain that the plugin brings. Rows with ÷ compare two of the same run. What two servers do differently
for a request on a kept connection can be less than a tenth of a microsecond: \`resolve\` measures that part alone.

${figures.map(({ name, date, title, rows }) => `## \`${name}\`, ${date}

${NOTES[name] === undefined ? '' : `${NOTES[name]}\n\n`}${writeTable(title, rows)}`).join('\n')}`
}

/** One line of the first table. */
function writeAnswer (results: Results, question: Question): string {
  const [asked, figure, name] = question
  const row = rowOf(results, figure, name)
  const measured = row?.value === undefined || whyNotQuotable(row) !== undefined ? '' : format(row.value, row.unit)
  return `| ${asked} | ${answerTo(results, question)} | ${measured} |`
}

function answerTo (results: Results, [, figure, name, than = PLAIN]: Question): string {
  const row = rowOf(results, figure, name)
  if (row === undefined) return 'not measured'
  const { value, control, unit } = row
  if (value === undefined) return `not shown: ${row.notShown}`
  const why = whyNotQuotable(row)
  if (why !== undefined) return `drowns in noise (not quotable: ${why})`
  const same = unit === 'B' ? 0 : 1
  const within = (number: number, { low, high }: Estimate) => low <= number && number <= high
  if (within(same, value) || (control !== undefined && within(value.median, control))) return 'no difference seen'
  if (value.median < same && than === PLAIN) return `no more than ${PLAIN}`
  const difference = unit === 'B'
    ? `${value.median.toFixed(0)} bytes`
    : `${(Math.abs(value.median - 1) * 100).toFixed(0)} %`
  return `${difference} ${value.median < same ? 'less' : 'more'} than ${than}`
}

const NOTES: Readonly<Record<string, string>> = {
  'one-shot-sources': `A connection is read once, so sources differ only here. \`'vtoa'\` is the stand-in of the tests, compared to
plain Fastify in the same kernel. \`'nat64'\` is not measured: it makes the same system call as \`'vtoa'\`.`,
  'idle-start': `All servers of a session idle together before their first request. V8 collects garbage meanwhile, in servers of any kind,
and with what it discards some processes could stay slow: the ninth deciles would show them.`,
  resolve: `In a hot loop, one request after the other of one connection: what differs between servers of \`keep-alive\`, without most of what they
have in common. The headers are parsed already, which is in favour of those who read them.`,
  read: `Node's own is measured twice here too. What Node.js does for its first \`remoteAddress\` is one system call and the making
of its answer; the plugin's own part is one through koffi, an object, and its being remembered. "The least that a WeakMap
takes" is those three in the shortest form, without sources, reasons or counters. 1348 takes the kernel longer than getpeername even where it fails, and
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
    `| ${title} | median [95 % interval] | control | target | absolute, spread |`,
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

const rowOf = ({ figures }: Results, figure: string, row: string) =>
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
  const parts = SENTENCE.map((question) => {
    const [asked, figure, name] = question
    const row = rowOf(results, figure, name)
    return `${asked} ${answerTo(results, question)}${row?.value === undefined || whyNotQuotable(row) !== undefined ? '' : `, ${format(row.value, row.unit)}`}`
  })
  return `Server CPU ÷ plain Fastify with Node's default flags, median [95 % interval]: ${parts.join('; ')}`
}
