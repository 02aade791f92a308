// Plants faults in copies of lib/ and runs the decisive lab test and the soak against each: both have to fail. Ends with a
// plain line.

import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { convertCompilerOptionsFromJson, transpileModule } from 'typescript'

interface Fault {
  readonly name: string
  readonly edits: ReadonlyArray<readonly [file: string, find: string, replace: string]>
  /** The decisive test of what the lab and the soak do not come across. */
  readonly test?: string
}

const faults: ReadonlyArray<Fault> = [
  {
    name: 'the cache is keyed by fd',
    edits: [
      ['lib/node/remembered.ts', 'readonly #values = new WeakMap<object, Value>()',
        'readonly #values = new class { byFd = new Map<any, any>(); keys = new WeakMap<any, any>(); ' +
        'key (o: any) { const fd = o?._handle?.fd ?? o?.socket?._handle?.fd; if (fd >= 0 && !this.keys.has(o)) { this.byFd.delete(fd); this.keys.set(o, fd) } return this.keys.get(o) } ' +
        'get (o: any): any { return this.byFd.get(this.key(o)) } ' +
        'set (o: any, e: any) { if (!this.keys.has(o)) this.key(o) ?? this.keys.set(o, e.fd); this.byFd.set(this.key(o), e) } }()']
    ]
  },
  {
    name: 'the buffer is not cleared',
    edits: [['lib/kernel/libc.ts', 'words[0] = words[1] = words[2] = words[3] = 0', 'void words']]
  },
  {
    name: 'optlen is trusted',
    edits: [
      ['lib/kernel/libc.ts', 'family: () => family[0] as number', 'family: () => (optlen[0] as number) >= 28 ? 10 : 2']
    ]
  },
  {
    name: 'read at the first request instead of at connect',
    edits: [
      ['lib/http/arrivals.ts', 'type HandOver = (socket: object) => void\n',
        'type HandOver = (socket: object) => void\nexport const late = new WeakMap<object, () => void>()\n'],
      ['lib/http/arrivals.ts', 'const fd = fdOf(socket)\n    const isUnix',
        'if (this.#owners.current.headers === undefined && !late.has(key)) { late.set(key, () => { late.set(key, () => {}); this.accept(socket, server, handOver) }); return "allowed" }\n' +
        'const fd = fdOf(socket)\n    const isUnix'],
      ['lib/http/observer.ts', "import type { Owner } from './owners'\n", "import type { Owner } from './owners'\nimport { late } from './arrivals'\n"],
      ['lib/http/observer.ts', 'return this.#recall(streamOf(raw) ?? acceptedSocket(raw.socket))\n',
        'const s: any = (raw.stream as any)?.session?.socket ?? raw.socket; const k = acceptedSocket(s?.valueOf()) as object; late.get(k)?.(); ' +
        'const stream = streamOf(raw); const e = this.#remembered.of(stream ?? k) ?? this.#remembered.of(k); ' +
        'if (e && stream) this.#remembered.set(stream, e); return e\n']
    ]
  },
  {
    name: 'the HTTP/2 proxy object is the key',
    edits: [
      ['lib/http/observer.ts', 'return this.#recall(streamOf(raw) ?? acceptedSocket(raw.socket))\n',
        'return this.#remembered.of(streamOf(raw) === undefined ? acceptedSocket(raw.socket) : raw.socket)\n'],
      ['lib/plugin.ts', 'remembered.inherit(session, socketOfSession(session))', 'remembered.inherit(session.socket, socketOfSession(session))'],
      ['lib/plugin.ts', 'remembered.inherit(stream, stream.session)', 'remembered.inherit((stream as any).session?.socket, (stream as any).session?.socket)']
    ]
  },
  {
    name: 'no evidence is a pass',
    test: 'http/requests',
    edits: [['lib/http/requests.ts', 'const evidence = this.#observer.examineRequest(request.raw)', 'const evidence: any = this.#observer.ofRequest(request.raw)']]
  },
  {
    name: 'handed over on time-out as if known',
    test: 'http/arrivals',
    edits: [
      ['lib/http/arrivals.ts', 'held = this.#hold.take(socket, SENDER_TIMEOUT, resume)',
        'held = this.#hold.take(socket, SENDER_TIMEOUT, () => { const { libc } = this.#owners.senders as Senders; const peer = createEndpoint(); libc.getpeername(fd); ' +
        'decodeSockaddr(libc.sockaddr, libc.family(), peer); this.#resume(socket, handOver, () => this.#receiveAwaited(socket, peer, handOver)) })'],
      ['lib/http/arrivals.ts', "import { type Held, Hold } from './hold'", "import { createEndpoint, decodeSockaddr } from '../kernel/sockaddr'\nimport { type Held, Hold } from './hold'"]
    ]
  },
  {
    name: 'a taken name is accepted',
    test: 'plugin',
    edits: [
      ['lib/index.ts', "if (app.hasDecorator('realIp')) throw", "if (app.hasDecorator('neverTaken')) throw"],
      ['lib/index.ts', 'if (app.hasRequestDecorator(name)) throw', "if (app.hasRequestDecorator('never ' + name)) throw"],
      ['lib/index.ts', "  app.decorate('realIp', realIp)", "  if (!app.hasDecorator('realIp')) app.decorate('realIp', realIp)"],
      ['lib/index.ts', "  app.decorateRequest('realIp', {", "  if (!app.hasRequestDecorator('realIp')) app.decorateRequest('realIp', {"],
      ['lib/index.ts', "  app.decorateRequest('realAddress', {", "  if (!app.hasRequestDecorator('realAddress')) app.decorateRequest('realAddress', {"]
    ]
  },
  {
    name: 'the SYN of another connection is used after a search',
    test: 'trust/guard',
    edits: [['lib/trust/guard.ts', 'if (sender !== this.#sender) kernel.senders.syn.forget()\n', '\n']]
  }
]

// It ends with the first wrong answer.
const SOAK = '50000'

const project = path.dirname(require.resolve('fastify-real-ip/package.json'))
const tsconfig = JSON.parse(readFileSync(path.join(project, 'tsconfig.json'), 'utf8'))
const { options: compilerOptions } = convertCompilerOptionsFromJson(tsconfig.compilerOptions, project)

interface Soaked { readonly connections: number, readonly wrong: number, readonly firstWrong?: number }

interface Outcome {
  readonly passed: boolean
  readonly output: string
  /** undefined: the soak was not run, or broke down as the output says */
  readonly soaked: Soaked | undefined
}

function runProgram (root: string, name: string, ...args: string[]) {
  return spawnSync(process.execPath, [path.join(root, 'dist/test', name), ...args], {
    encoding: 'utf8', cwd: root, env: { ...process.env, FASTIFY_REAL_IP_LAB: 'required' }
  })
}

const runTest = (root: string, test = 'lab/decisive') => runProgram(root, `${test}.test.js`)

function plant (edits: Fault['edits'], copy: string): void {
  for (const part of ['dist/lib', 'dist/test', 'dist/bench', 'dist/bpf', 'lib', 'test', 'bpf', 'package.json']) {
    cpSync(path.join(project, part), path.join(copy, part), { recursive: true })
  }
  symlinkSync(path.join(project, 'node_modules'), path.join(copy, 'node_modules'))
  const changed = new Map<string, string>()
  for (const [file, find, replace] of edits) {
    const source = changed.get(file) ?? readFileSync(path.join(copy, file), 'utf8')
    if (source.split(find).length !== 2) throw new Error(`${file} has not exactly one '${find}' to plant a fault in`)
    changed.set(file, source.replace(find, () => replace))
  }
  // Types are not checked: what a fault breaks beyond its purpose shows as a test that fails without an answer.
  for (const [file, source] of changed) {
    const { outputText } = transpileModule(source, { compilerOptions: { ...compilerOptions, sourceMap: false } })
    writeFileSync(path.join(copy, 'dist', file.replace(/ts$/, 'js')), outputText)
  }
}

function run (edits: Fault['edits'], test?: string): Outcome {
  const copy = mkdtempSync(path.join(tmpdir(), 'fastify-real-ip-fault-'))
  try {
    plant(edits, copy)
    const { status, stdout, stderr } = runTest(copy, test)
    const passed = status === 0
    if (test !== undefined) return { passed, output: stdout + stderr, soaked: undefined }
    const results = path.join(copy, 'soak.json')
    const soak = runProgram(copy, 'soak/run.js', '--connections', SOAK, '--seed', '1', '--results', results)
    const soaked = existsSync(results) ? JSON.parse(readFileSync(results, 'utf8')).counts : undefined
    return { passed, output: stdout + stderr + soak.stdout + soak.stderr, soaked }
  } finally {
    rmSync(copy, { recursive: true, force: true })
  }
}

let failed = 0
const only = process.argv[2]
const report = (good: boolean, line: string) => {
  if (!good) failed++
  console.log(`${good ? 'ok' : 'NOT OK'} - ${line}`)
}

let count = 0
for (const decisive of new Set([undefined, ...faults.map(({ test }) => test)])) {
  if (only !== undefined && decisive !== faults.find(({ name }) => name.includes(only))?.test) continue
  const { status, stdout, stderr } = runTest(project, decisive)
  report(status === 0, `without a fault ${decisive ?? 'the decisive test'} passes`)
  if (status !== 0) console.log(stdout + stderr)
  count++
}
for (const { name, edits, test } of faults) {
  if (only !== undefined && !name.includes(only)) continue
  const { passed, output, soaked } = run(edits, test)
  // It has to fail by an answer, not because nothing ran.
  const caught = !passed && /not ok/.test(output) && (test === undefined ? /^ *# Subtest: h2$/m : /^ok/m).test(output)
  report(caught, `caught by ${test ?? 'the decisive test'}: ${name}`)
  count++
  let isWhole = caught
  if (test === undefined) {
    const soakCaught = soaked !== undefined && soaked.wrong > 0
    report(soakCaught, `caught by the soak within ${soaked?.firstWrong ?? soaked?.connections} connections: ${name}`)
    count++
    isWhole &&= soakCaught
    if (soaked === undefined) console.log(output.split('\n').slice(-15).join('\n'))
  }
  if (!isWhole || only !== undefined) console.log(output.split('\n').filter((line) => /not ok|instead of|wrong|FAILED/.test(line)).slice(0, 12).join('\n'))
}
console.log(`faults: ${count - failed} passed, ${failed} failed`)
process.exit(failed === 0 ? 0 : 1)
