import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'

/** Why there is no Redis here, in one sentence; undefined where there is. */
export function redisUnavailable (): string | undefined {
  const { error, status } = spawnSync('redis-server', ['--version'])
  if (error === undefined && status === 0) return undefined
  return 'there is no redis-server: apt-get install redis-server'
}

/** Starts a Redis of its own, in memory and on a Unix-domain socket; it ends with the test. The path of the socket. */
export async function startRedis (t: Test): Promise<string> {
  const folder = mkdtempSync(join(tmpdir(), 'fastify-real-ip-redis-'))
  const socket = join(folder, 'redis.sock')
  const server = spawn('redis-server', [
    '--port', '0', '--unixsocket', socket, '--dir', folder, '--save', '', '--appendonly', 'no', '--daemonize', 'no'
  ], { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = once(server, 'exit')
  t.teardown(async () => {
    server.kill()
    await ended
    rmSync(folder, { recursive: true })
  })
  for await (const line of createInterface({ input: server.stdout })) {
    if (line.includes('ready to accept connections')) {
      server.stdout.resume()
      return socket
    }
  }
  throw new Error('redis-server ended before it was ready')
}
