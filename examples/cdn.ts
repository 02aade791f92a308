// Behind a CDN that publishes the addresses of its servers.
// TRUSTED_PEERS=173.245.48.0/20,103.21.244.0/22 node dist/examples/cdn.js
//
// TRUSTED_PEERS is the list to begin with; from then on LIST_URLS has it. What cannot be fetched, or is no such
// list, changes nothing: the last good one stays. The defaults are Cloudflare's.
//
// Let the firewall admit the same list only. Other customers of the CDN can send requests through its servers too: let
// it prove that it sends yours, by a client certificate ("authenticated origin pulls") or a secret header.

import { isIP } from 'node:net'
import Fastify, { type FastifyInstance } from 'fastify'
import realIp from 'fastify-real-ip'

const {
  HOST = '127.0.0.1', PORT = '3000', TRUSTED_PEERS = '', HEADER = 'cf-connecting-ip',
  LIST_URLS = 'https://www.cloudflare.com/ips-v4,https://www.cloudflare.com/ips-v6', REFRESH_SECONDS = '3600'
} = process.env
// Lost or empty it is no list of addresses: the server then fails to start.
const trust = TRUSTED_PEERS.split(',')

const TIMEOUT = 5000 // milliseconds
const SIZE_MAX = 64 * 1024 // bytes
const ENTRIES_MAX = 1000
// A wider range is no CDN's.
const PREFIX_MIN = { 4: 8, 6: 19 }

/** One list: a range on each line. Throws where it is anything else. */
async function fetchRanges (url: string): Promise<string[]> {
  const { protocol, hostname } = new URL(url)
  // Who writes the list decides who is believed.
  if (protocol !== 'https:' && hostname !== '127.0.0.1') throw new Error('a list must come by https')
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
  // Words that the option takes, like 'loopback', are no part of a published list.
  if (version === 0) throw new Error(`${JSON.stringify(range.slice(0, 50))} is no range of addresses`)
  if (bits !== undefined && Number(bits) < PREFIX_MIN[version as 4 | 6]) throw new Error(`${range} is too wide`)
}

/** Swaps the list, or leaves it as it is. */
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
