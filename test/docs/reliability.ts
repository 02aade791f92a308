import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Result as Mutants } from '../mutation/reporter'
import type { Row } from '../reach/reach'
import type { Results as Soak } from '../soak/run'
import { project } from './markdown'

// docs/reliability.md, from what the long runs wrote down and nothing else: npm run docs:reliability

const PAGE = 'docs/reliability.md'

type Counts = Readonly<Record<string, number>>

interface Fuzz {
  readonly node: string
  readonly machine: string
  readonly seed: number
  readonly seconds: number
  readonly cases: number
  readonly targets: Counts
}

interface Mutation {
  readonly node: string
  readonly files: Readonly<Record<string, Mutants>>
  readonly total: Mutants
}

interface Reach {
  readonly kernel: string
  readonly rows: readonly Row[]
}

const recorded = <Results>(path: string): Results | undefined =>
  existsSync(join(project, path)) ? JSON.parse(readFileSync(join(project, path), 'utf8')) as Results : undefined

const NOT_SHOWN = 'Not shown: no long run is recorded.'
const number = (value: number) => value.toLocaleString('en')
const list = (counts: object) => Object.entries(counts as Counts).map(([name, count]) => `${name} ${number(count)}`).join(', ')
const minutes = (seconds: number) => `${Math.max(1, Math.round(seconds / 60))} minutes`

function table (head: readonly string[], rows: ReadonlyArray<readonly string[]>): string {
  return [head, head.map(() => '---'), ...rows].map((row) => `| ${row.join(' | ')} |`).join('\n')
}

function tellSoak (soak: Soak | undefined): string {
  if (soak === undefined) return NOT_SHOWN
  const { counts, disturbances, slopes, checkpoints, stretches = [] } = soak
  const { answers } = counts
  const kinds = 'servers' in counts
    ? `Some servers read PROXY headers or X-Forwarded-For, some are a round-robin worker's, and some have the programs of
[\`attach\`](attach.md) in place of the stand-in, which are replaced and detached meanwhile.

`
    : ''
  return `${kinds}**${number(counts.connections)} connections, ${number(answers.exact + answers.window)} answers checked, ${number(counts.wrong)} wrong**, in
${minutes(soak.seconds)}${stretches.length > 1 ? `, in ${stretches.length} stretches with server processes of their own` : ''} (Node.js ${soak.node}, Linux ${soak.kernel}, seed ${soak.seed}).

${table(['what', 'how often'], [
  ['connections', list(counts.protocols)],
  ...'servers' in counts
    ? [
        ['servers', list(counts.servers)],
        ['PROXY headers that were sent', list(counts.headers)],
        ['requests with X-Forwarded-For, where it counts', list(counts.forwarded)]
      ]
    : [],
  ['claims that were stamped', list(counts.claims)],
  ['how connections ended', list(counts.fates)],
  ['switches meanwhile', list(disturbances)],
  ['answers that could be one thing alone', number(answers.exact)],
  ['answers that could be one of two, because of a switch meanwhile', number(answers.window)],
  ['late answers, when the descriptor had another connection', number(answers.reused)],
  [`heap that a further connection leaves behind${stretches.length > 1 ? ', at most' : ''}`, `${slopes.heap.toFixed(2)} B`],
  ['resident memory', `${slopes.rss.toFixed(2)} B`],
  ['descriptors with no connection open, first and last', `${checkpoints[0]?.fds}, ${checkpoints.at(-1)?.fds}`],
  ['listeners then', `${checkpoints[0]?.listeners}, ${checkpoints.at(-1)?.listeners}`]
])}`
}

function tellFuzz (fuzz: Fuzz | undefined): string {
  if (fuzz === undefined) return NOT_SHOWN
  return `**${number(fuzz.cases)} cases, none found**, in ${minutes(fuzz.seconds)} (Node.js ${fuzz.node}, ${fuzz.machine}, seed ${fuzz.seed}):
${list(fuzz.targets)}.`
}

function tellMutation (mutation: Mutation | undefined): string {
  if (mutation === undefined) return NOT_SHOWN
  const row = (name: string, { mutants, of, killed, timeout, survived, noCoverage, equivalent, score }: Mutants) =>
    [name, `${number(mutants)}${of === undefined ? '' : ` of ${number(of)}`}`, ...[killed, timeout, survived + noCoverage, equivalent].map(number), `${score} %`]
  const left = readdirSync(join(project, 'lib'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.ts') && !(`lib/${name}` in mutation.files)).sort()
  return `**${mutation.total.score} %** of ${number(mutation.total.mutants)} mutants are noticed (Node.js ${mutation.node}).${left.length === 0
    ? ''
    : ` Not shown: ${left.map((name) => `\`${name}\``).join(', ')}.`}

${table(['file', 'mutants', 'killed', 'timed out', 'survived', 'of them equivalent', 'score'], [
  ...Object.entries(mutation.files).map(([name, file]) => row(`\`${name}\``, file)),
  row('all', mutation.total)
])}`
}

function tellReach (reach: Reach | undefined): string {
  if (reach === undefined) return NOT_SHOWN
  const names = [...new Set(reach.rows.flatMap(({ checks }) => Object.keys(checks)))]
  const platform = ({ node, arch, libc, emulator }: Row) => [node, arch, libc, ...emulator === undefined ? [] : [emulator]].join(', ')
  const alike = [false, true].map((emulated) => reach.rows.filter(({ emulator }) => (emulator !== undefined) === emulated))
  return alike.map((rows) => `${rows.map(platform).join('; ')}, Linux ${reach.kernel}:

${table(['what', 'seen'], names.map((name) => [
  name,
  [...new Set(rows.map(({ checks }) => checks[name] ?? 'not shown'))].join('; ')
]))}`).join('\n\n')
}

export function writeReliability (): string {
  const soak = recorded<Soak>('test/soak/results.json')
  return `# Reliability

<!-- Generated from test/*/results.json by npm run docs:reliability. -->

What the long runs found. Shorter forms of all but the mutants run before each release.

## Soak

\`npm run soak -- --connections ${soak?.counts.connections ?? 1_000_000}\`, as root on Linux. An eBPF stand-in for vtoa answers, and clients stamp TOA on their own
segments, each connection with an address of its own from a counter. They come from several source addresses to servers of
HTTP, HTTPS, h2c and HTTP/2, with and without \`trustedPeers\`. Meanwhile connections are reset, the stand-in is stopped and
started, the list is swapped, and the event loop is stalled. Each answer is checked against what the client stamped: at once,
late, and when the descriptor had long been another connection's.

${tellSoak(soak)}

## Fuzz

\`npm run fuzz -- --cases 10000000\`: whatever the network or a user can hand to a parser, against a plain second
implementation, with a corpus that the suite replays.

${tellFuzz(recorded('test/fuzz/results.json'))}

## Mutants

\`npm run mutation\`: \`lib/\` with one operator, literal or branch changed at a time. Those that survive were looked at one by one;
the equivalent ones, which no test can tell from the original, are in test/mutation/equivalent.json with the reason, and
count as survivors here.

${tellMutation(recorded('test/mutation/results.json'))}

## Faults

Each has a test that shows the server answering on: koffi that throws at load, every errno of the system calls, no
descriptor left, clients gone before they are accepted, floods of spoofed SYNs, netlink refused, clocks that jump,
\`close()\` under load, two copies of the package in one process, an \`admit\` that throws, a full disk under the log. They are in
test/faults, test/package/degraded.test.ts, test/copies.test.ts, test/trust/admit.test.ts and test/lab/trust-flood.test.ts.

## Reach

The whole suite runs on Node.js 20 and 26, what depends on Node.js also on 22 and 24 (x64, glibc), before each release. npm, pnpm,
Yarn 1, and Yarn 4 with Plug'n'Play install the packed tarball, and it runs under PM2. Elsewhere:

${tellReach(recorded('test/reach/results.json'))}

Under emulation 1348 is the emulator's answer, not a kernel's; neither saved SYNs nor sock_diag(7) can be had there, so that
a transport peer that is trusted was not seen on arm64.

Not shown: a kernel with the real vtoa module; musl (koffi has binaries for it, and musl exports every function that the
plugin binds, but neither npm nor Debian has a Node.js for it); macOS and Windows, where the plugin gives the socket's own
remote address.
`
}

if (require.main === module) writeFileSync(join(project, PAGE), writeReliability())
