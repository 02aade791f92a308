import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import type { FastifyRequest, FastifyServerOptions } from 'fastify'
import proxyAddr from '@fastify/proxy-addr'
import fastifyRealIp = require('fastify-real-ip')
import { type Address, parseAddress } from '../lib/address/address'
import { fdOf } from '../lib/node/sockets'
import { compileHeader, walk } from '../lib/http/forwarded'
import { loadLibc } from '../lib/kernel/libc'
import { compileRanges } from '../lib/address/ranges'
import { createEndpoint, type Endpoint } from '../lib/kernel/sockaddr'
import { requestOf } from './arrived'
import { answer } from './child'
import type { Slices } from './loops'
import { IPv4 } from './network'
import { forthAndBack } from './statistics'

// Hot loops in slices of a few milliseconds: node loop-server.js SET [NAME]

type Loop = (calls: number) => void

interface Loops {
  /** Calls per slice */
  readonly calls: number
  readonly loops: Readonly<Record<string, Loop>>
}

const WARM_UP = 20
const SLICES = 60
const REQUESTS = 240
const seen: { value?: unknown } = {}

/** One loop function for all, so that V8 optimizes it alike. */
function loop (once: (i: number) => unknown): Loop {
  return (calls) => {
    for (let i = 0; i < calls; i++) seen.value = once(i)
  }
}

const sets: Readonly<Record<string, (thing: string) => Promise<Loops | string>>> = { ranges, forwarded, log }

async function ranges (): Promise<Loops | string> {
  const libc = loadLibc()
  if (typeof libc === 'string') return libc
  const server = createServer().listen(0, IPv4.host)
  await once(server, 'listening')
  const accepted = once(server, 'connection') as Promise<[Socket]>
  connect((server.address() as AddressInfo).port, IPv4.host)
  const fd = fdOf((await accepted)[0])

  // Ranges that do not touch, so that none are merged. Of two addresses asked for, one is in the list.
  const blocks = Array.from({ length: 1000 }, (_, i) => i * 8)
  const nets = { IPv4: (i: number) => `${16 + (i >> 8)}.${i & 255}.`, IPv6: (i: number) => `2001:db8:${i.toString(16)}:` }
  const list = compileRanges([
    ...blocks.map((i) => `${nets.IPv4(i)}0.0/16`), ...blocks.map((i) => `${nets.IPv6(i)}:/48`)
  ], 'trustedPeers')
  const asked = (write: (i: number) => string) => Array.from({ length: 4096 }, (): Endpoint => {
    const address = parseAddress(write(oneBelow(1000) * 8 + oneBelow(2))) as Address
    return Object.assign(createEndpoint(), address)
  })
  const v4 = asked((i) => `${nets.IPv4(i)}${oneBelow(256)}.${oneBelow(256)}`)
  const v6 = asked((i) => `${nets.IPv6(i)}${oneBelow(65536).toString(16)}::${oneBelow(65536).toString(16)}`)
  const ask = (addresses: readonly Endpoint[]) => {
    let at = 0
    return loop(() => list.includes(addresses[at++ % 4096] as Endpoint))
  }
  return {
    calls: 4096,
    loops: {
      getpeername: loop(() => libc.getpeername(fd)),
      'getpeername again': loop(() => libc.getpeername(fd)),
      IPv4: ask(v4),
      IPv6: ask(v6)
    }
  }
}

/**
 * The header lines of a request from a proxy, as Node.js provides them, and the connection's own answer, a trusted
 * claim.
 */
function behind (remoteAddress: string, family: 'IPv4' | 'IPv6', name: string, line: string) {
  return {
    raw: {
      socket: { remoteAddress },
      headers: { host: 'localhost', 'user-agent': 'bench', accept: '*/*', [name.toLowerCase()]: line },
      rawHeaders: ['Host', 'localhost', 'User-Agent', 'bench', 'Accept', '*/*', name, line]
    },
    base: Object.freeze({
      address: remoteAddress,
      port: 1,
      family,
      source: 'getpeername',
      trust: 'trusted',
      transportPeer: Object.freeze({ address: '192.0.2.1', port: 1 }),
      attempts: []
    } as const)
  }
}

async function forwarded (): Promise<Loops> {
  const families = {
    IPv4: { proxies: '198.51.100.', client: '203.0.113.', list: ['198.51.100.0/24'] },
    IPv6: { proxies: '2001:db8:51::', client: '2001:db8:113::', list: ['2001:db8:51::/48'] }
  }
  const loops: Record<string, Loop> = {}
  for (const family of ['IPv4', 'IPv6'] as const) {
    const { proxies, client, list } = families[family]
    const trust = compileRanges(list, 'forwarded.trust')
    const compiled = proxyAddr.compile(list)
    const requests = (name: string, write: (client: string, i: number) => string) =>
      Array.from({ length: REQUESTS }, (_, i) => behind(`${proxies}9`, family, name, write(`${client}${10 + i}`, i)))
    const add = (what: string, name: string, write: (client: string, i: number) => string) => {
      const given = requests(name, write)
      const readHops = compileHeader(name.toLowerCase())
      const walked = (i: number) => {
        const { base, raw } = given[i % REQUESTS] as typeof given[number]
        return walk(base, trust, readHops, raw.rawHeaders)
      }
      for (let i = 0; i < REQUESTS; i++) {
        if (walked(i).address !== `${client}${10 + i}`) throw new Error(`${what}: ${walked(i).address} instead of ${client}${10 + i}`)
      }
      loops[`${family} ${what}`] = loop(walked)
    }
    const addProxyAddr = (what: string, write: (client: string, i: number) => string) => {
      const given = requests('X-Forwarded-For', write)
      const asked = (i: number) =>
        proxyAddr(given[i % REQUESTS]?.raw as unknown as Parameters<typeof proxyAddr>[0], compiled)
      loops[`${family} ${what}`] = loop(asked)
      loops[`${family} ${what} again`] = loop(asked)
    }
    const threeHops = (client: string, i: number) => `${client}, ${proxies}${10 + i}, ${proxies}8`
    addProxyAddr('proxy-addr, three hops', threeHops)
    add('three hops', 'X-Forwarded-For', threeHops)
    addProxyAddr('proxy-addr', (client) => client)
    add('X-Forwarded-For', 'X-Forwarded-For', (client) => client)
    add('X-Real-IP', 'X-Real-IP', (client) => client)
    add('CloudFront-Viewer-Address', 'CloudFront-Viewer-Address', (client) => `${client}:443`)
    add('Forwarded', 'Forwarded', (client) => family === 'IPv4' ? `for=${client};proto=https` : `for="[${client}]";proto=https`)
  }
  return { calls: 1024, loops }
}

async function log (thing: string): Promise<Loops> {
  const { withRealIp } = fastifyRealIp
  // Fastify's own serializer, except for the last two fields.
  const replaced = (request: FastifyRequest) => ({
    method: request.method,
    url: request.url,
    version: request.headers && request.headers['accept-version'],
    host: request.host,
    realIp: request.realIp,
    realPort: request.realAddress.port
  })
  const serializers: Record<string, (request: FastifyRequest) => unknown> = { replaced, withRealIp: withRealIp() }
  const loops: Record<string, Loop> = {}
  for (const name of ['default', 'default again', thing]) {
    const serializer = serializers[name]
    let last = ''
    const stream = { write (line: string) { last = line } }
    const logger = { stream, ...(serializer && { serializers: { req: serializer } }) }
    const request = await requestOf({
      options: { logger } as FastifyServerOptions,
      ...(serializer && { register: (app) => app.register(fastifyRealIp) })
    })
    const write = () => request.log.info({ req: request }, 'incoming request')
    write()
    const { req } = JSON.parse(last) as { req: Record<string, unknown> }
    const expected = IPv4.from ?? IPv4.host
    if ((serializer === undefined ? req.remoteAddress : req.realIp) !== expected) throw new Error(`no ${expected} in ${last}`)
    loops[name] = loop(write)
  }
  return { calls: 512, loops }
}

const oneBelow = (n: number) => Math.floor(Math.random() * n)

async function measure (set: string, thing: string): Promise<Slices | string> {
  const made = await sets[set]?.(thing)
  if (typeof made !== 'object') return made ?? `there is no ${set}`
  const { calls, loops } = made
  const names = Object.keys(loops)
  const slices: Record<string, number[]> = Object.fromEntries(names.map((name) => [name, []]))
  for (let slice = -WARM_UP; slice < SLICES; slice++) {
    const spent: Record<string, number> = {}
    for (const name of forthAndBack(names)) {
      const start = performance.now()
      loops[name]?.(calls)
      spent[name] = (spent[name] ?? 0) + (performance.now() - start) * 1e6 / (2 * calls)
    }
    if (slice >= 0) for (const name of names) slices[name]?.push(spent[name] as number)
  }
  return slices
}

answer({ measure: () => measure(process.argv[2] as string, process.argv[3] as string) })
