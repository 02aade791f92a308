import { spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'
import { readArguments, UsageError } from '../../lib/cli/arguments'
import type { Seen } from '../../lib/cli/sighting'

const bin = join(dirname(require.resolve('fastify-real-ip/package.json')), 'dist/lib/cli/bin.js')

export interface Printed {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** How the program is started: flags of Node.js, and a command that goes before all. */
export interface Start {
  readonly flags?: readonly string[]
  readonly before?: readonly string[]
  readonly env?: NodeJS.ProcessEnv
  /** Another copy of it. */
  readonly program?: string
}

function start (args: readonly string[], { flags = [], before = [], env = {}, program = bin }: Start): ChildProcess {
  const [command, ...rest] = [...before, process.execPath, ...flags, program, ...args] as [string, ...string[]]
  return spawn(command, rest, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
}

/** Runs the program to its end. */
export async function run (args: readonly string[], how: Start = {}): Promise<Printed> {
  const child = start(args, how)
  const printed = { stdout: '', stderr: '' }
  child.stdout?.setEncoding('utf8').on('data', (text) => { printed.stdout += text })
  child.stderr?.setEncoding('utf8').on('data', (text) => { printed.stderr += text })
  const [code] = await once(child, 'close') as [number | null]
  return { code, ...printed }
}

/** Asserts that the arguments are refused with one sentence. */
export function refusesArguments (t: Test, args: string[], says: RegExp): void {
  try {
    readArguments(args)
    t.fail(args.join(' '))
  } catch (error) {
    t.ok(error instanceof UsageError)
    t.match((error as Error).message, says)
    t.match((error as Error).message, /^[^\n]+\.$/)
  }
}

export interface Watch {
  readonly child: ChildProcess
  readonly port: number
  /** The next line about a connection, from `--json`. */
  seen (): Promise<Seen>
  /** All that it prints until it ends. */
  text (): Promise<string>
  /** All that it has noted so far, on stderr. */
  readonly notes: readonly string[]
  /** The first note that has this text, waited for. */
  noted (text: string): Promise<string>
  readonly ended: Promise<number | null>
}

/** Starts `watch 0`, and waits until it listens. */
export async function startWatch (t: Test, args: readonly string[] = ['--json'], how: Start = {}): Promise<Watch> {
  const child = start(['watch', '0', ...args], how)
  const ended = once(child, 'close').then(([code]) => code as number | null)
  t.teardown(async () => {
    child.kill('SIGINT')
    await ended
  })
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]()
  const notes: string[] = []
  const waiting = new Set<() => void>()
  const port = await new Promise<number>((resolve, reject) => {
    createInterface({ input: child.stderr! }).on('line', (line) => {
      notes.push(line)
      for (const look of waiting) look()
      const port = /^Listening on .*:(\d+); press Ctrl-C to exit\.$/.exec(line)?.[1]
      if (port !== undefined) resolve(Number(port))
    }).on('close', () => { reject(new Error(`watch has not listened: ${notes.join('\n')}`)) })
  })
  return {
    child,
    port,
    notes,
    ended,
    noted: (text) => new Promise((resolve) => {
      const look = () => {
        const found = notes.find((note) => note.includes(text))
        if (found === undefined) return
        waiting.delete(look)
        resolve(found)
      }
      waiting.add(look)
      look()
    }),
    async seen () {
      const { value, done } = await lines.next()
      if (done === true) throw new Error(`watch has ended: ${notes.join('\n')}`)
      return JSON.parse(value)
    },
    async text () {
      let text = ''
      for (let next = await lines.next(); next.done !== true; next = await lines.next()) text += `${next.value}\n`
      return text
    }
  }
}

/** An ordinary connection, closed at the end of the test. */
export async function open (t: Test, port: number, host = '127.0.0.1'): Promise<Socket> {
  const socket = connect(port, host)
  t.teardown(() => { socket.destroy() })
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}
