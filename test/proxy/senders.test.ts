import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls, type ConnectionOptions } from 'node:tls'
import t, { type Test } from 'tap'
import type { ProxyProtocol } from 'fastify-real-ip'
import { formatAddress } from '../../lib/address/address'
import { decodeProxyHeader, type ProxyHeader } from '../../lib/sources/proxy-header'
import { describeProxyHeader } from '../../lib/sources/proxy-tlvs'
import { project } from '../docs/markdown'
import { hasIPv6 } from '../player/namespace'
import { type Sender, senderUnavailable, startHaproxy, startNginx } from './senders'

// What real senders write, as their first bytes on a plain server.

t.setTimeout(60_000)

const required = process.env.FASTIFY_REAL_IP_LAB === 'required'
const skip = (name: 'haproxy' | 'nginx') => ({ skip: required ? false : senderUnavailable(name) ?? false })

interface Received {
  readonly header: ProxyHeader
  /** What came behind the header by then. */
  readonly rest: string
  readonly described: ProxyProtocol
}

/** A server that takes the first bytes of each connection; a promise for the next one that `matches`. */
async function receive (t: Test) {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const sockets = new Set<Socket>()
  t.teardown(async () => {
    for (const socket of sockets) socket.destroy()
    server.close()
    await once(server, 'close')
  })
  const next = (matches: (received: Received) => boolean, behind = '') => new Promise<Received>((resolve, reject) => {
    server.on('connection', (socket) => {
      sockets.add(socket)
      let bytes = Buffer.alloc(0)
      socket.on('error', () => {}).on('data', (part: Buffer) => {
        bytes = Buffer.concat([bytes, part])
        const header = decodeProxyHeader(bytes, bytes.length)
        if (header === 'more') return
        if ('reason' in header) {
          reject(new Error(`${header.reason} ${header.what}`))
          return
        }
        const rest = bytes.toString('latin1', header.length)
        const received = { header, rest, described: describeProxyHeader(header) }
        if (matches(received) && rest.length >= behind.length) resolve(received)
      })
    })
  })
  return { target: (server.address() as AddressInfo).port, next }
}

const BODY = 'PROXY as the client says it\r\n'

/** Connects through the sender and writes; the client's end, as the header should have it. */
async function visit (t: Test, { host, port }: Sender, tls?: ConnectionOptions): Promise<{ address: string, port: number }> {
  const socket = tls === undefined ? connect(port, host) : connectTls({ host, port, rejectUnauthorized: false, ...tls })
  t.teardown(() => { socket.destroy() })
  await once(socket, tls === undefined ? 'connect' : 'secureConnect')
  socket.write(BODY)
  return { address: socket.localAddress as string, port: socket.localPort as number }
}

function sameAs (t: Test, { header, rest, described }: Received, version: 1 | 2, client: { address: string, port: number }, sender: Sender): void {
  t.strictSame([header.version, header.local], [version, false])
  t.strictSame(header.source && [formatAddress(header.source), header.source.port], [client.address, client.port])
  t.strictSame(described.destination, { address: sender.host, port: sender.port })
  t.equal(rest, BODY, 'what the client wrote follows, and nothing else')
}

for (const version of [1, 2] as const) {
  for (const host of ['127.0.0.1', ...hasIPv6() ? ['::1'] : []]) {
    t.test(`HAProxy, version ${version}, a client of ${host}`, skip('haproxy'), async (t) => {
      const { target, next } = await receive(t)
      const sender = await startHaproxy(t, { target, version, host })
      const received = next(() => true, BODY)
      const client = await visit(t, sender)
      sameAs(t, await received, version, client, sender)
    })
  }

  t.test(`HAProxy's health checks, version ${version}`, skip('haproxy'), async (t) => {
    const { target, next } = await receive(t)
    const check = next(() => true)
    await startHaproxy(t, { target, version, checks: true })
    const { header, rest } = await check
    t.equal(rest, '')
    if (version === 2) {
      t.strictSame([header.local, header.source], [true, undefined], 'LOCAL')
    } else {
      // The check has reset the connection, so that Node.js knows no remote port any more.
      t.strictSame([formatAddress(header.source!), header.destination?.port], ['127.0.0.1', target], 'it names itself')
      t.ok(header.source!.port > 0)
    }
  })
}

t.test('HAProxy, version 2, with a unique id and a checksum', skip('haproxy'), async (t) => {
  const { target, next } = await receive(t)
  const sender = await startHaproxy(t, { target, version: 2, options: ['unique-id', 'crc32c'] })
  const received = next(() => true, BODY)
  const client = await visit(t, sender)
  const answer = await received
  sameAs(t, answer, 2, client, sender)
  const { uniqueId, tlvs } = answer.described
  t.equal(Buffer.from(uniqueId as string, 'hex').toString(), `127.0.0.1:${client.port}-127.0.0.1:${sender.port}`)
  t.strictSame(tlvs, [])
  t.ok(Buffer.from(answer.header.tlvs).includes(Buffer.of(3, 0, 4)), 'its checksum was there, and right')
})

const fixture = (name: string) => readFileSync(join(project, 'test/fixtures', name))

for (const certificate of [false, true]) {
  t.test(`HAProxy, version 2, in front of TLS ${certificate ? 'with' : 'without'} a client certificate`, skip('haproxy'), async (t) => {
    const { target, next } = await receive(t)
    const options = ['ssl', 'cert-cn', 'ssl-cipher', 'cert-sig', 'cert-key', 'authority', 'crc32c']
    const sender = await startHaproxy(t, { target, version: 2, tls: true, options })
    const received = next(() => true, BODY)
    const client = await visit(t, sender, {
      servername: 'localhost',
      ALPNProtocols: ['h2'],
      minVersion: 'TLSv1.3',
      ...(certificate && { cert: fixture('cert.pem'), key: fixture('key.pem') })
    })
    const answer = await received
    sameAs(t, answer, 2, client, sender)
    const { alpn, authority, ssl, tlvs } = answer.described
    t.strictSame([alpn, authority, tlvs], ['h2', 'localhost', []])
    t.match(ssl, { version: 'TLSv1.3', cipher: /^TLS_/, signatureAlgorithm: /SHA256/i, keyAlgorithm: /^EC/ })
    t.strictSame([ssl?.client, ssl?.verified, ssl?.commonName], certificate ? [7, true, 'localhost'] : [1, false, undefined])
  })
}

t.test('nginx, version 1', skip('nginx'), async (t) => {
  const { target, next } = await receive(t)
  const sender = await startNginx(t, { target })
  const received = next(() => true, BODY)
  const client = await visit(t, sender)
  sameAs(t, await received, 1, client, sender)
})

t.test('nginx, version 1, an IPv4 client of an IPv6 socket', { skip: hasIPv6() ? skip('nginx').skip : 'there is no IPv6' }, async (t) => {
  const { target, next } = await receive(t)
  const { port } = await startNginx(t, { target, host: '::' })
  for (const host of ['127.0.0.1', '::1']) {
    const sender = { host, port }
    const received = next(({ described }) => described.destination?.address === host, BODY)
    const client = await visit(t, sender)
    sameAs(t, await received, 1, client, sender)
  }
})
