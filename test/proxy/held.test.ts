import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import type { FastifyRealIpOptions } from 'fastify-real-ip'
import { loadLibc } from '../../lib/kernel/libc'
import { kinds } from '../kinds'
import { exchanges } from './exchanges'
import { goodHeaders, badHeaders } from './headers'
import { checkBad, checkGood, serve, type Setting } from './matrix'
import { ways } from './wire'

// Where the sender has no address: a balancer on the same host, by a Unix-domain socket; and without native calls, where
// every connection is held and read through its stream.

t.setTimeout(600_000)

const isNative = typeof loadLibc() !== 'string'
const how = isNative ? 'with native calls' : 'without native calls'

function unixPath (): string {
  const folder = mkdtempSync(join(tmpdir(), 'fastify-real-ip-unix-'))
  t.teardown(() => rmSync(folder, { recursive: true, force: true }))
  return join(folder, 'socket')
}

const onUnix = { skip: process.platform === 'win32' && 'no Unix-domain sockets' }
// A list needs to know the sender of TCP connections, but nobody's on a Unix-domain socket.
const listed: FastifyRealIpOptions = { trustedPeers: ['192.0.2.1'], proxyProtocol: { from: ['unix'] } }
interface Held {
  readonly what: string
  readonly skip: object
  readonly setting: () => Setting
  /** @default all */
  readonly names?: readonly string[]
}

const settings: readonly Held[] = [
  { what: 'a Unix-domain socket, listed', skip: onUnix, setting: () => ({ options: listed, listen: { path: unixPath() } }) },
  {
    what: "a Unix-domain socket, 'any'",
    skip: onUnix,
    setting: () => ({ options: { trustedPeers: 'any' }, listen: { path: unixPath() } }),
    names: ['http', 'h2']
  },
  ...isNative ? [] : [{ what: 'TCP', skip: {}, setting: () => ({ options: { trustedPeers: 'any' as const } }) }]
]

for (const { what, skip, setting, names } of settings) {
  const isMeant = ({ name }: { readonly name: string }) => names?.includes(name) !== false
  for (const exchange of exchanges.filter(isMeant)) {
    t.test(`${what}, ${how}: ${exchange.name}`, skip, async (t) => {
      const served = await serve(t, exchange.kind, setting())
      for (const way of ways) await checkGood(t, served, exchange, way, false)
      t.match(served.app.realIp.stats(), { connections: goodHeaders.length * ways.length, rejected: 0 })
    })
  }
  for (const { name } of kinds.filter(isMeant)) {
    t.test(`${what}, ${how}, ${name}: bad headers`, skip, async (t) => {
      const served = await serve(t, name, setting())
      for (const way of ways) await checkBad(t, served, way)
      t.match(served.app.realIp.stats(), { connections: badHeaders.length * ways.length, rejected: badHeaders.length * ways.length })
    })
  }
}

if (isNative) {
  // koffi is an addon.
  void t.spawn(process.execPath, ['--no-addons', __filename], { diagnostic: false }, 'without native calls')
}
