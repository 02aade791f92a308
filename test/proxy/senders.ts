import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { Test } from 'tap'
import { project } from '../docs/markdown'

// Real proxies, which send a PROXY header or one of HTTP, on loopback, from Debian's packages haproxy, nginx and libnginx-mod-stream.

const STREAM_MODULE = '/usr/lib/nginx/modules/ngx_stream_module.so'

/** Why there is no such sender here, in one sentence; undefined where there is. */
export function senderUnavailable (name: 'haproxy' | 'nginx'): string | undefined {
  const { error, status } = spawnSync(name, ['-v'], { stdio: 'ignore' })
  if (error !== undefined || status !== 0) return `there is no ${name}: apt-get install ${name}`
  if (name === 'nginx' && !existsSync(STREAM_MODULE)) return 'nginx has no stream module: apt-get install libnginx-mod-stream'
  return undefined
}

/** A sender that runs: what connects to it is forwarded, behind a PROXY header. */
export interface Sender {
  readonly host: string
  readonly port: number
}

export interface Haproxy {
  /** The port on 127.0.0.1 that it forwards to. */
  readonly target: number
  readonly version: 1 | 2
  /** Of version 2, as `proxy-v2-options` takes them: `'ssl'`, `'cert-cn'`, `'unique-id'`, `'authority'`, `'crc32c'`, … */
  readonly options?: readonly string[]
  /** Ends TLS, and asks for a client certificate. */
  readonly tls?: boolean
  /** Connects now and then to see whether the target is there. */
  readonly checks?: boolean
  /** @default '127.0.0.1' */
  readonly host?: string
}

/** The unique id that it sends, of what the client and itself have on this connection. */
export const UNIQUE_ID = '%ci:%cp-%fi:%fp'

/** Starts HAProxy, which ends with the test. */
export async function startHaproxy (t: Test, { target, version, options = [], tls = false, checks = false, host = '127.0.0.1' }: Haproxy): Promise<Sender> {
  const folder = makeFolder(t)
  const port = await freePort(host)
  const certificate = join(folder, 'server.pem')
  if (tls) writeFileSync(certificate, ['cert.pem', 'key.pem'].map((name) => readFileSync(fixture(name), 'utf8')).join('\n'))
  const listen = tls ? ` ssl crt ${certificate} alpn h2,http/1.1 verify optional ca-file ${fixture('cert.pem')}` : ''
  const send = [
    version === 1 ? 'send-proxy' : 'send-proxy-v2',
    ...options.length > 0 ? [`proxy-v2-options ${options.join(',')}`] : [],
    ...checks ? ['check inter 200 check-send-proxy'] : []
  ].join(' ')
  await start(t, 'haproxy', ['-W', '-db', '-f', writeConfiguration(folder, `
global
  maxconn 200
defaults
  mode tcp
  timeout connect 5s
  timeout client 30s
  timeout server 30s
listen forward
  bind ${bracketed(host)}:${port}${listen}
  ${options.includes('unique-id') ? `unique-id-format "${UNIQUE_ID}"` : ''}
  server target 127.0.0.1:${target} ${send}
`)], 'Loading success')
  return { host, port }
}

/** Starts nginx's stream proxy, which sends version 1 alone; it ends with the test. */
export async function startNginx (t: Test, { target, host = '127.0.0.1' }: { readonly target: number, readonly host?: string }): Promise<Sender> {
  const folder = makeFolder(t)
  const port = await freePort(host)
  // One process. Its notice of getrlimit comes when it listens.
  await start(t, 'nginx', ['-p', folder, '-c', writeConfiguration(folder, `
load_module ${STREAM_MODULE};
daemon off;
master_process off;
pid ${join(folder, 'pid')};
error_log stderr notice;
events { worker_connections 200; }
stream {
  server {
    listen ${bracketed(host)}:${port} ipv6only=off;
    proxy_pass 127.0.0.1:${target};
    proxy_protocol on;
  }
}
`.replace(host.includes(':') ? '' : ' ipv6only=off', ''))], 'getrlimit')
  return { host, port }
}

/** Starts nginx as an HTTP proxy, which ends with the test: `upstream` as in `proxy_pass`, `headers` as nginx's own lines. */
export async function startHttpNginx (t: Test, upstream: string, headers: readonly string[]): Promise<Sender> {
  const folder = makeFolder(t)
  const host = '127.0.0.1'
  const port = await freePort(host)
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${join(folder, name)};`)
  await start(t, 'nginx', ['-p', folder, '-c', writeConfiguration(folder, `
daemon off;
master_process off;
pid ${join(folder, 'pid')};
error_log stderr notice;
events { worker_connections 200; }
http {
  access_log off;
  ${temporary.join('\n  ')}
  server {
    listen ${host}:${port};
    location / {
      proxy_pass ${upstream};
      ${headers.map((line) => `proxy_set_header ${line};`).join('\n      ')}
    }
  }
}
`)], 'getrlimit')
  return { host, port }
}

const fixture = (name: string) => join(project, 'test/fixtures', name)

const bracketed = (host: string) => host.includes(':') ? `[${host}]` : host

function makeFolder (t: Test): string {
  const folder = mkdtempSync(join(tmpdir(), 'fastify-real-ip-proxy-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  return folder
}

function writeConfiguration (folder: string, text: string): string {
  const path = join(folder, 'configuration')
  writeFileSync(path, text)
  return path
}

async function freePort (host: string): Promise<number> {
  const server = createServer().listen(0, host)
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, 'close')
  return port
}

/** Starts a program, which ends with the test or with this process; resolves when it has written `ready`. */
async function start (t: Test, name: string, args: readonly string[], ready: string): Promise<void> {
  const child = spawn('setpriv', ['--pdeathsig', 'TERM', name, ...args], { stdio: ['ignore', 'ignore', 'pipe'] })
  const ended = once(child, 'close')
  t.teardown(async () => {
    child.kill()
    await ended
  })
  const said: string[] = []
  for await (const line of createInterface({ input: child.stderr })) {
    said.push(line)
    if (line.includes(ready)) {
      child.stderr.resume()
      return
    }
  }
  throw new Error(`${name} ended before it was ready: ${said.join('\n')}`)
}
