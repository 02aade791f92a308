// Behind a CDN that publishes the addresses of its servers.
// TRUSTED_PEERS=173.245.48.0/20,103.21.244.0/22 node dist/examples/cdn.js
//
// TRUSTED_PEERS is the initial list; later lists come from LIST_URLS. If a list cannot be fetched or is invalid, the
// previous one stays in use. The defaults are Cloudflare's.
//
// Allow only the same list in the firewall. Other customers of the CDN can also send requests through its servers: the
// CDN must prove that a request is yours, by a client certificate ("authenticated origin pulls") or a secret header.

import { isIP } from 'node:net'
import Fastify, { type FastifyInstance } from 'fastify'
import realIp from 'fastify-real-ip'

const {
  HOST = '127.0.0.1', PORT = '3000', TRUSTED_PEERS = '', HEADER = 'cf-connecting-ip',
  LIST_URLS = 'https://www.cloudflare.com/ips-v4,https://www.cloudflare.com/ips-v6', REFRESH_SECONDS = '3600'
} = process.env
// If TRUSTED_PEERS is missing or empty, this is not a list of addresses, and the server fails to start.
const trust = TRUSTED_PEERS.split(',')

const TIMEOUT = 5000 // milliseconds
const SIZE_MAX = 64 * 1024 // bytes
const ENTRIES_MAX = 1000
// No CDN has a wider range.
const PREFIX_MIN = { 4: 8, 6: 19 }

/** Fetches one list: a range on each line. Throws for anything else. */
async function fetchRanges (url: string): Promise<string[]> {
  const { protocol, hostname } = new URL(url)
  // Whoever writes the list decides who is believed.
  if (protocol !== 'https:' && hostname !== '127.0.0.1') throw new Error('a list must be fetched by https')
  const response = await fetch(url, { redirect: 'error', signal: AbortSignal.timeout(TIMEOUT) })
  if (response.status !== 200 || response.body === null) throw new Error(`status ${response.status}`)
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of response.body) {
    size += chunk.length
    if (size > SIZE_MAX) throw new Error(`more than ${SIZE_MAX} bytes`)
    chunks.push(chunk)
  }
  const ranges = Buffer.concat(chunks).toString().split('\n').map((line) => line.trim()).filter((line) => line !== '')
  if (ranges.length === 0) throw new Error('an empty list')
  if (ranges.length > ENTRIES_MAX) throw new Error(`more than ${ENTRIES_MAX} entries`)
  for (const range of ranges) checkRange(range)
  return ranges
}

function checkRange (range: string): void {
  const [, address = '', bits] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(range) ?? []
  const version = isIP(address)
  // A published list must not contain the option's presets, like 'loopback'.
  if (version === 0) throw new Error(`${JSON.stringify(range.slice(0, 50))} is not a range of addresses`)
  if (bits !== undefined && Number(bits) < PREFIX_MIN[version as 4 | 6]) throw new Error(`${range} is too wide`)
}

/** Replaces the list, or keeps it if a new one is not available. */
async function refresh (app: FastifyInstance): Promise<void> {
  try {
    const ranges = (await Promise.all(LIST_URLS.split(',').map(fetchRanges))).flat()
    app.realIp.setForwardedTrust(ranges)
    app.log.info({ entries: ranges.length }, 'list refreshed')
  } catch (error) {
    app.log.error({ err: error }, 'list not refreshed, the last one stays')
  }
}

async function main (): Promise<void> {
  const app = Fastify({ logger: true })
  await app.register(realIp, { forwarded: { trust, header: HEADER } })

  app.get('/', (request) => `Hello, ${request.realIp}\n`)

  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => { app.close() })
  await app.listen({ host: HOST, port: Number(PORT) })

  await refresh(app)
  const timer = setInterval(() => { void refresh(app) }, Number(REFRESH_SECONDS) * 1000)
  timer.unref()
}

main()
