import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { text } from 'node:stream/consumers'
import type { Test } from 'tap'

const examples = join(dirname(require.resolve('fastify-real-ip/package.json')), 'dist/examples')

/** An example that runs, as a user starts it. */
export interface Example {
  /** 0: it listens on a Unix-domain socket. */
  readonly port: number
  /** What it has written so far. */
  readonly lines: readonly string[]
  /** The first line that has `text`, waited for. */
  line (text: string): Promise<string>
  /** Ends it as Ctrl-C does; resolves with the exit code. */
  end (): Promise<number | null>
}

/** Starts dist/examples/NAME.js on a free port, and waits until it listens. */
export async function startExample (t: Test, name: string, env: NodeJS.ProcessEnv = {}): Promise<Example> {
  const child = spawn(process.execPath, [join(examples, `${name}.js`)], {
    env: { ...process.env, PORT: '0', TRUSTED_PEERS: 'any', ...env },
    stdio: ['ignore', 'pipe', 'inherit']
  })
  const ended = once(child, 'exit') as Promise<[number | null]>
  t.teardown(async () => {
    child.kill('SIGKILL')
    await ended
  })
  const output = new Lines(child)
  const listening = JSON.parse(await output.line('Server listening at'))
  const at: string = listening.msg.slice('Server listening at '.length)
  return {
    port: at.startsWith('/') ? 0 : Number(new URL(at).port),
    lines: output.all,
    line: (text) => output.line(text),
    async end () {
      child.kill('SIGINT')
      return (await ended)[0]
    }
  }
}

/** Starts an example that is expected to end at once. */
export async function runExample (name: string, env: NodeJS.ProcessEnv): Promise<{ code: number | null, stdout: string, stderr: string }> {
  const child = spawn(process.execPath, [join(examples, `${name}.js`)], {
    env: { ...process.env, PORT: '0', ...env }, stdio: ['ignore', 'pipe', 'pipe'], timeout: 30_000
  })
  const [stdout, stderr, [code]] = await Promise.all([text(child.stdout), text(child.stderr), once(child, 'exit')])
  return { code: code as number | null, stdout, stderr }
}

class Lines {
  readonly all: string[] = []
  readonly #waiting = new Set<() => void>()
  #ended = false

  constructor (child: ChildProcess) {
    const wake = () => { for (const look of [...this.#waiting]) look() }
    createInterface({ input: child.stdout! })
      .on('line', (line) => {
        this.all.push(line)
        wake()
      })
      .on('close', () => {
        this.#ended = true
        wake()
      })
  }

  line (text: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const look = () => {
        const found = this.all.find((line) => line.includes(text))
        if (found === undefined && !this.#ended) return
        this.#waiting.delete(look)
        if (found !== undefined) resolve(found)
        else reject(new Error(`it ended without a line '${text}': ${this.all.join('\n')}`))
      }
      this.#waiting.add(look)
      look()
    })
  }
}
