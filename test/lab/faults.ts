// Plants faults in copies of lib/ and runs the decisive lab test and the soak against each: both have to fail. Ends with a
// plain line.

import { spawnSync } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

interface Fault {
  readonly name: string
  readonly edits: ReadonlyArray<readonly [file: string, find: string, replace: string]>
}

const faults: ReadonlyArray<Fault> = [
  {
    name: 'the cache is keyed by fd',
    edits: [
      ['lib/http/observer.ts', 'readonly #evidence = createPrivateMap<Evidence>()',
        'readonly #evidence = new class { byFd = new Map<any, any>(); keys = new WeakMap<any, any>(); ' +
        'key (o: any) { const fd = o?._handle?.fd ?? o?.socket?._handle?.fd; if (fd >= 0) this.keys.set(o, fd); return this.keys.get(o) } ' +
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
      ['lib/http/observer.ts', 'const evidence = this.#guard.examine(socket, fdOf(socket))\n',
        'this.#late.set(key, () => { const e = this.#guard.examine(socket, fdOf(socket)); this.#late.set(key, () => e); return e })\n' +
        'if (this.#late.has(key)) return\nconst evidence = this.#guard.examine(socket, -1)\n'],
      ['lib/http/observer.ts', 'readonly #guard: Guard\n',
        'readonly #guard: Guard\n  readonly #late = new WeakMap<object, () => Evidence>()\n'],
      ['lib/http/observer.ts', 'return this.#evidence.get(key)\n',
        'let e = this.#evidence.get(key as object); const s: any = (raw.stream as any)?.session?.socket ?? raw.socket; ' +
        'if (e === undefined) { e = this.#late.get(acceptedSocket(s?.valueOf()) as object)?.(); if (e) this.#evidence.set(key as object, e) } return e\n']
    ]
  },
  {
    name: 'the HTTP/2 proxy object is the key',
    edits: [
      ['lib/http/observer.ts', 'const key: unknown = isObject(raw.stream) ? raw.stream : acceptedSocket(raw.socket)',
        'const key: unknown = isObject(raw.stream) ? raw.socket : acceptedSocket(raw.socket)'],
      ['lib/http/observer.ts', 'this.#inherit(session, socketOfSession(session))', 'this.#inherit(session.socket, socketOfSession(session))'],
      ['lib/http/observer.ts', 'this.#inherit(stream, stream.session)', 'this.#inherit((stream as any).session?.socket, (stream as any).session?.socket)']
    ]
  }
]

// It ends with the first wrong answer.
const SOAK = '50000'

const project = path.dirname(require.resolve('fastify-real-ip/package.json'))

interface Soaked { readonly connections: number, readonly wrong: number, readonly firstWrong?: number }

interface Outcome {
  readonly passed: boolean
  readonly output: string
  /** of the soak, which is not run without a fault; undefined: it broke down, says the output */
  readonly soaked: Soaked | undefined
}

function run (edits: Fault['edits']): Outcome {
  const copy = mkdtempSync(path.join(tmpdir(), 'fastify-real-ip-fault-'))
  try {
    for (const part of ['lib', 'types', 'test', 'bench', 'package.json', 'tsconfig.json']) {
      cpSync(path.join(project, part), path.join(copy, part), { recursive: true })
    }
    symlinkSync(path.join(project, 'node_modules'), path.join(copy, 'node_modules'))
    for (const [file, find, replace] of edits) {
      const source = readFileSync(path.join(copy, file), 'utf8')
      if (source.split(find).length !== 2) throw new Error(`${file} has not exactly one '${find}' to plant a fault in`)
      writeFileSync(path.join(copy, file), source.replace(find, () => replace))
    }
    const tsc = spawnSync(process.execPath, [require.resolve('typescript/bin/tsc'), '-p', copy,
      '--noUnusedLocals', 'false', '--noUnusedParameters', 'false'], { encoding: 'utf8' })
    if (tsc.status !== 0) throw new Error(`it does not compile:\n${tsc.stdout}`)
    const program = (name: string, ...args: string[]) => spawnSync(process.execPath, [path.join(copy, 'dist/test', name), ...args], {
      encoding: 'utf8', cwd: copy, env: { ...process.env, FASTIFY_REAL_IP_LAB: 'required' }
    })
    const test = program('lab/decisive.test.js')
    const passed = test.status === 0
    if (edits.length === 0) return { passed, output: test.stdout + test.stderr, soaked: undefined }
    const results = path.join(copy, 'soak.json')
    const soak = program('soak/run.js', '--connections', SOAK, '--seed', '1', '--results', results)
    return { passed, output: test.stdout + test.stderr + soak.stdout + soak.stderr, soaked: existsSync(results) ? JSON.parse(readFileSync(results, 'utf8')).counts : undefined }
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

const control = run([])
report(control.passed, 'without a fault the decisive test passes')
if (!control.passed) console.log(control.output)
let count = 1
for (const { name, edits } of faults) {
  if (only !== undefined && !name.includes(only)) continue
  const { passed, output, soaked } = run(edits)
  // It has to fail by an answer, not because nothing ran.
  const caught = !passed && /not ok/.test(output) && /^ *# Subtest: h2$/m.test(output)
  const soakCaught = soaked !== undefined && soaked.wrong > 0
  report(caught, `caught by the decisive test: ${name}`)
  report(soakCaught, `caught by the soak within ${soaked?.firstWrong ?? soaked?.connections} connections: ${name}`)
  if (!caught || !soakCaught || only !== undefined) console.log(output.split('\n').filter((line) => /not ok|instead of|wrong|FAILED/.test(line)).slice(0, 12).join('\n'))
  if (soaked === undefined) console.log(output.split('\n').slice(-15).join('\n'))
  count += 2
}
console.log(`faults: ${count - failed} passed, ${failed} failed`)
process.exit(failed === 0 ? 0 : 1)
