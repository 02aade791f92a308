import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { Test } from 'tap'
import type { Crowd } from './crowd'

/** Starts a crowd, which leaves at the end of the test; resolves once all its connections are made. */
export async function gather (t: Test, crowd: Crowd): Promise<ChildProcess> {
  const child = fork(join(__dirname, 'crowd.js'))
  t.teardown(async () => {
    if (!child.connected) return
    child.send('leave')
    await once(child, 'exit')
  })
  child.send(crowd)
  await once(child, 'message')
  return child
}
