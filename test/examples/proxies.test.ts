import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import http, { type OutgoingHttpHeaders, type ServerResponse } from 'node:http'
import { type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import t, { type Test } from 'tap'
import { project } from '../docs/markdown'
import { senderUnavailable, startHttpNginx } from '../proxy/senders'
import { type Example, startExample } from './example'

// Examples behind proxies: a real nginx, and a list that a local server publishes.

t.setTimeout(120_000)

const required = process.env.FASTIFY_REAL_IP_LAB === 'required'
const noNginx = senderUnavailable('nginx')
const skipNginx = { skip: noNginx !== undefined && !required && noNginx }
const linux = { skip: process.platform !== 'linux' && 'not Linux' }

const CLIENT = '127.0.0.9'
const forged = {
  'x-real-ip': '203.0.113.7', 'x-forwarded-for': '203.0.113.7', 'x-forwarded-proto': 'https', 'x-forwarded-host': 'evil.example'
}

async function get (
  port: number, { path = '/', localAddress = CLIENT, headers = {} as OutgoingHttpHeaders } = {}
): Promise<[status: number | undefined, body: string]> {
  const sent = http.get({ host: '127.0.0.1', port, path, localAddress, headers, agent: false })
  const [response] = await once(sent, 'response') as [http.IncomingMessage]
  return [response.statusCode, await text(response)]
}

/** The lines for nginx that stand in the example. */
const lines = [...readFileSync(join(project, 'examples/nginx.ts'), 'utf8').matchAll(/^\/\/ +proxy_set_header (.*);$/gm)]
  .map(([, line]) => line as string)

t.test('nginx by TCP', skipNginx, async (t) => {
  t.equal(lines.length, 3)
  const example = await startExample(t, 'nginx', { TRUSTED_PEERS: '127.0.0.1', STAFF: '127.0.0.9' })
  const { port } = await startHttpNginx(t, `http://127.0.0.1:${example.port}`, lines)
  for (const headers of [{}, forged]) {
    t.same(await get(port, { headers }), [200, `Hello, ${CLIENT}, by http://127.0.0.1:${port}\n`], 'nginx overwrites what the client says')
  }
  t.same(await get(port, { path: '/admin' }), [200, 'Hello, staff\n'])
  t.same(await get(port, { path: '/admin', localAddress: '127.0.0.10', headers: { ...forged, 'x-real-ip': CLIENT } }), [403, 'Staff only\n'])
  const past = await get(example.port, { localAddress: '127.0.0.10', headers: forged })
  t.same(past, [200, `Hello, 127.0.0.10, by http://127.0.0.1:${example.port}\n`], 'past nginx')
  t.equal(await example.end(), 0, 'it ends well')
})

t.test('nginx by TCP that writes no header: nobody is staff by its address', skipNginx, async (t) => {
  const example = await startExample(t, 'nginx', { TRUSTED_PEERS: '127.0.0.1', STAFF: '127.0.0.1' })
  const { port } = await startHttpNginx(t, `http://127.0.0.1:${example.port}`, ['X-Real-IP ""'])
  t.match((await get(port, { headers: forged }))[1], 'Hello, 127.0.0.1, by')
  t.same(await get(port, { path: '/admin' }), [403, 'Staff only\n'])
  t.equal(await example.end(), 0, 'it ends well')
})

t.test('nginx by a Unix-domain socket', skipNginx, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'fastify-real-ip-nginx-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  for (const [TRUSTED_PEERS, client] of [['unix', CLIENT], ['10.0.0.0/8', 'undefined']] as const) {
    const SOCKET = join(folder, `${client}.sock`)
    const example = await startExample(t, 'nginx', { TRUSTED_PEERS, SOCKET, STAFF: CLIENT })
    const { port } = await startHttpNginx(t, `http://unix:${SOCKET}:`, lines)
    const [status, body] = await get(port, { headers: forged })
    t.equal(status, 200)
    const isTrusted = client === CLIENT
    t.match(body, isTrusted ? `Hello, ${CLIENT}, by http://127.0.0.1:${port}\n` : 'Hello, undefined, by http://')
    t.notMatch(body, 'evil.example')
    t.equal((await get(port, { path: '/admin' }))[0], isTrusted ? 200 : 403)
    t.equal(await example.end(), 0, 'it ends well')
  }
})

type Publish = (response: ServerResponse) => unknown

/** A server of the test that publishes a list: what it answers with can be changed. */
async function publisher (t: Test): Promise<{ url: string, publish (answer: string | Publish): void }> {
  let answer: Publish = (response) => response.end()
  const server = http.createServer((_request, response) => { answer(response) }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  t.teardown(() => {
    server.closeAllConnections()
    server.close()
  })
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/ips`,
    publish (next) { answer = typeof next === 'string' ? (response) => response.end(next) : next }
  }
}

t.test('cdn', linux, async (t) => {
  const list = await publisher(t)
  const header = { 'cf-connecting-ip': '203.0.113.7' }
  const hello = async ({ port }: Example, localAddress: string) => (await get(port, { localAddress, headers: header }))[1].trim()
  const start = async (answer: string | Publish) => {
    list.publish(answer)
    const example = await startExample(t, 'cdn', { TRUSTED_PEERS: '127.0.0.20', LIST_URLS: list.url, REFRESH_SECONDS: '1' })
    return example
  }

  await t.test('a good list takes the place of the first one, and a worse one changes nothing', async (t) => {
    const example = await start('127.0.0.9/32\n2001:db8::/32\n\n')
    t.match(JSON.parse(await example.line('list refreshed')), { entries: 2 })
    t.equal(await hello(example, CLIENT), 'Hello, 203.0.113.7')
    t.equal(await hello(example, '127.0.0.20'), 'Hello, 127.0.0.20', 'no longer in the list')

    list.publish('0.0.0.0/0\n')
    t.match(JSON.parse(await example.line('0.0.0.0/0 is too wide')), { level: 50, msg: 'list not refreshed, the last one stays' })
    t.equal(await hello(example, CLIENT), 'Hello, 203.0.113.7')
    t.equal(await hello(example, '127.0.0.10'), 'Hello, 127.0.0.10')

    list.publish('127.0.0.10\n')
    await example.line('"entries":1')
    t.equal(await hello(example, '127.0.0.10'), 'Hello, 203.0.113.7', 'and good ones count again')
    t.equal(await hello(example, CLIENT), `Hello, ${CLIENT}`)
    t.equal(await example.end(), 0, 'it ends well')
  })

  const filled = (bytes: number): Publish => (response) => response.end('127.0.0.9/32\n'.repeat(bytes / 13))
  for (const [what, answer, says] of [
    ['empty', '\n', 'an empty list'],
    ['HTML', '<!doctype html>', 'is not a range of addresses'],
    ['words of the option', '127.0.0.9\nloopback\nunix\n', 'is not a range of addresses'],
    ['host bits', '127.0.0.9/8', 'FST_REAL_IP_INVALID_OPTION'],
    ['all of IPv6', '::/0', 'is too wide'],
    ['an error', (response) => response.writeHead(503).end('127.0.0.9'), 'status 503'],
    ['a redirect', (response) => response.writeHead(302, { location: '/other' }).end(), 'list not refreshed'],
    ['too big', filled(13 * 10_000), 'more than 65536 bytes'],
    ['too many', filled(13 * 1500), 'more than 1000 entries'],
    ['cut short', (response) => {
      response.writeHead(200, { 'content-length': 100 }).write('127.0.0.9\n', () => response.destroy())
    }, 'list not refreshed'],
    ['silent', () => {}, 'TimeoutError']
  ] as Array<[string, string | Publish, string]>) {
    await t.test(`${what}: the first list stays`, async (t) => {
      const example = await start(answer)
      t.match(JSON.parse(await example.line(says)), { level: 50, msg: 'list not refreshed, the last one stays' })
      t.equal(await hello(example, '127.0.0.20'), 'Hello, 203.0.113.7')
      t.equal(await hello(example, CLIENT), `Hello, ${CLIENT}`)
      t.equal(await example.end(), 0, 'it ends well')
    })
  }

  await t.test('a list that does not come by https', async (t) => {
    const example = await startExample(t, 'cdn', { TRUSTED_PEERS: '127.0.0.20', LIST_URLS: list.url.replace('127.0.0.1', 'localhost') })
    t.ok(await example.line('a list must be fetched by https'))
    t.equal(await example.end(), 0, 'it ends well')
  })
})

t.test('pm2, without PM2', linux, async (t) => {
  const example = await startExample(t, 'pm2', { TRUSTED_PEERS: '192.0.2.1' })
  t.match((await get(example.port))[1], new RegExp(`^Hello, ${CLIENT}, from process \\d+\n$`))
  t.equal(await example.end(), 0, 'it ends well')
})
