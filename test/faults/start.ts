import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import type { Test } from 'tap'
import type { Order } from './child'

export interface Started {
  readonly port: number
  readonly pid: number
  /** Has it end by itself; its exit status. */
  end (): Promise<number | null>
}

/** Starts a server in a process of its own, by a command that the program's own follows. */
export async function start (t: Test, order: Order, command: readonly string[] = []): Promise<Started> {
  const [file, ...args] = [...command, process.execPath, path.join(__dirname, 'child.js')] as string[]
  const child = spawn(file as string, args, {
    env: { ...process.env, FASTIFY_REAL_IP_ORDER: JSON.stringify(order) }, stdio: ['ignore', 'ignore', 'inherit', 'ipc']
  })
  const exit = once(child, 'exit')
  async function end (): Promise<number | null> {
    if (child.connected) child.disconnect()
    return (await exit)[0] as number | null
  }
  // One that cannot end, for want of room for its log say, is not left behind.
  t.teardown(() => {
    child.kill('SIGKILL')
    return exit
  })
  const [port] = await Promise.race([once(child, 'message'), exit.then(() => { throw new Error('the server ended') })]) as [number]
  return { port, pid: child.pid as number, end }
}
