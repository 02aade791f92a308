import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'

// Both ends of the channel between a benchmark and its processes: one question and one answer at a time.

const ANSWER_WITHIN = 120_000

type Message = { readonly answer?: unknown, readonly error?: string }

export interface Child {
  ask<T = void> (question: string, about?: unknown): Promise<T>
  stop (): Promise<void>
}

export interface Place {
  readonly core?: number | undefined
  readonly cgroup?: string | undefined
  readonly node?: readonly string[]
  /** A command that runs another one. */
  readonly before?: readonly string[]
}

const enterCgroup = 'echo $$ > "$0/cgroup.procs" && exec "$@"'

/** Starts a process that runs `script` of this directory. */
export async function start (
  script: string, args: readonly string[], { core, cgroup, node = [], before = [] }: Place = {}
): Promise<Child> {
  let command = [process.execPath, ...node, join(__dirname, `${script}.js`), ...args]
  if (core !== undefined) command = ['taskset', '-c', String(core), ...command]
  if (cgroup !== undefined) command = ['/bin/sh', '-c', enterCgroup, cgroup, ...command]
  command = [...before, ...command]
  const child = spawn(command[0] as string, command.slice(1), { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] })

  async function nextAnswer (what: string): Promise<unknown> {
    const aborter = new AbortController()
    const { signal } = aborter
    const timer = setTimeout(() => aborter.abort(), ANSWER_WITHIN)
    try {
      const [message] = await Promise.race([
        once(child, 'message', { signal }),
        once(child, 'exit', { signal }).then(() => [{ error: 'its process ended' }])
      ]) as [Message]
      if (message.error !== undefined) throw new Error(message.error)
      return message.answer
    } catch (cause) {
      child.kill('SIGKILL')
      throw new Error(`${script} ${args.join(' ')}: ${what} failed`, { cause })
    } finally {
      clearTimeout(timer)
      aborter.abort()
    }
  }

  await nextAnswer('start')
  return {
    async ask<T> (question: string, about?: unknown) {
      child.send({ question, about })
      return await nextAnswer(question) as T
    },
    async stop () {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.kill('SIGKILL')
      await once(child, 'exit')
    }
  }
}

/** Ends what `run` started, however it ends. */
export async function withChildren<T> (run: (fresh: typeof start) => Promise<T>): Promise<T> {
  const children: Child[] = []
  try {
    return await run(async (...args) => {
      const child = await start(...args)
      children.push(child)
      return child
    })
  } finally {
    await Promise.all(children.map((child) => child.stop()))
  }
}

/** The child's end: answers questions by name until its parent exits. */
export function answer (answers: Record<string, (about: any) => unknown>): void {
  process.on('message', async ({ question, about }: { question: string, about: unknown }) => {
    try {
      process.send?.({ answer: await answers[question]?.(about) })
    } catch (error) {
      process.send?.({ error: (error as Error).stack })
    }
  })
  process.on('disconnect', () => process.exit())
  process.send?.({})
}

/** One core for servers and another for clients; `undefined` if processes cannot be pinned. */
export function chooseCores (): { readonly server: number, readonly client: number } | undefined {
  if (process.platform !== 'linux' || spawnSync('taskset', ['--version']).status !== 0) return undefined
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? ''
  const [server, client] = list.split(',').flatMap((range) => {
    const [first = 0, last = first] = range.split('-').map(Number)
    return Array.from({ length: last - first + 1 }, (_, i) => first + i)
  })
  return server === undefined || client === undefined ? undefined : { server, client }
}
