import { channel } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { connect as connectTls, type ConnectionOptions } from 'node:tls'
import t from 'tap'
import type { ConnectionMessage, FastifyRealIpOptions, RealAddress } from 'fastify-real-ip'
import { project } from '../docs/markdown'
import { askHttp } from './ask'
import { exchanges } from './exchanges'
import { serve, type Served } from './matrix'
import { type Sender, senderUnavailable, startHaproxy, startNginx } from './senders'

// From a client through a real HAProxy, or nginx's stream proxy, to request.realAddress.

t.setTimeout(120_000)

const required = process.env.FASTIFY_REAL_IP_LAB === 'required'
const skip = (name: 'haproxy' | 'nginx') => ({ skip: process.platform !== 'linux' ? 'not Linux' : required ? false : senderUnavailable(name) ?? false })

const CLIENT = '127.0.0.77'
const BALANCER = '127.0.0.1'
// A reset of what has no header shows that there was one.
const options: FastifyRealIpOptions = { sources: ['proxy-protocol'], trustedPeers: [BALANCER] }
const portOf = ({ app }: Served) => (app.server.address() as AddressInfo).port

const expectedOf = (sender: Sender, version: 1 | 2, client: { localPort?: number | undefined }) => ({
  address: CLIENT,
  port: client.localPort,
  source: 'proxy-protocol',
  trust: 'trusted',
  transportPeer: { address: BALANCER },
  proxyProtocol: { version, local: false, destination: { address: sender.host, port: sender.port } }
})

for (const [name, version] of [['haproxy', 1], ['haproxy', 2], ['nginx', 1]] as const) {
  t.test(`${name}, version ${version}`, skip(name), async (t) => {
    for (const exchange of exchanges) {
      const served = await serve(t, exchange.kind, { options })
      const sender = name === 'haproxy' ? await startHaproxy(t, { target: portOf(served), version }) : await startNginx(t, { target: portOf(served) })
      const socket = connect({ host: sender.host, port: sender.port, localAddress: CLIENT })
      await once(socket, 'connect')
      const expected = expectedOf(sender, version, { localPort: socket.localPort })
      for (const answer of await exchange.run(socket)) t.match(answer, expected, exchange.name)
      t.match(served.app.realIp.stats(), { connections: 1, rejected: 0, source: { 'proxy-protocol': 1 } })
      socket.destroy()
    }
  })
}

t.test('HAProxy, version 2, ends TLS: what it says of the client', skip('haproxy'), async (t) => {
  const served = await serve(t, 'http', { options })
  const sender = await startHaproxy(t, {
    target: portOf(served), version: 2, tls: true, options: ['ssl', 'cert-cn', 'ssl-cipher', 'authority', 'unique-id', 'crc32c']
  })
  const fixture = (name: string) => readFileSync(join(project, 'test/fixtures', name))
  for (const certificate of [false, true]) {
    const socket = connect({ host: sender.host, port: sender.port, localAddress: CLIENT })
    await once(socket, 'connect')
    const client = { localPort: socket.localPort }
    const secure: ConnectionOptions = {
      socket, rejectUnauthorized: false, servername: 'localhost', ALPNProtocols: ['http/1.1'], ...certificate && { cert: fixture('cert.pem'), key: fixture('key.pem') }
    }
    const answer = await askHttp(() => connectTls(secure)) as RealAddress
    t.match(answer, expectedOf(sender, 2, client))
    t.match(answer.proxyProtocol, {
      alpn: 'http/1.1', authority: 'localhost', ssl: { version: /^TLSv1\./, verified: certificate, commonName: certificate ? 'localhost' : undefined }, tlvs: []
    })
    t.equal(Buffer.from(answer.proxyProtocol?.uniqueId as string, 'hex').toString(), `${CLIENT}:${client.localPort}-${sender.host}:${sender.port}`)
  }
})

for (const version of [1, 2] as const) {
  t.test(`HAProxy's health checks, version ${version}`, skip('haproxy'), async (t) => {
    const told: RealAddress[] = []
    const isTold = new Promise<void>((resolve) => {
      const listen = (message: unknown) => {
        told.push((message as ConnectionMessage).realAddress)
        if (told.length === 3) resolve()
      }
      channel('fastify-real-ip:connection').subscribe(listen)
      t.teardown(() => channel('fastify-real-ip:connection').unsubscribe(listen))
    })
    const served = await serve(t, 'http', { options: { ...options, missing: 'reject' } })
    const sender = await startHaproxy(t, { target: portOf(served), version, checks: true })
    await isTold
    for (const one of told) t.match(one, { address: BALANCER, source: 'transport-peer', trust: 'trusted', reason: 'proxy-local', proxyProtocol: { version, local: version === 2 } })
    const socket = connect({ host: sender.host, port: sender.port, localAddress: CLIENT })
    await once(socket, 'connect')
    t.match(await askHttp(() => socket), { address: CLIENT, trust: 'trusted' }, 'it finds the server up')
    t.equal(served.app.realIp.stats().rejected, 0)
  })
}

t.test('a client cannot add a header of its own', skip('haproxy'), async (t) => {
  const served = await serve(t, 'http', { options })
  const sender = await startHaproxy(t, { target: portOf(served), version: 2 })
  const forged = Buffer.from('PROXY TCP4 192.0.2.66 198.51.100.1 1 2\r\n')
  t.equal(await askHttp(() => connect({ host: sender.host, port: sender.port, localAddress: CLIENT }), { header: forged }), 400, 'a second one is data')
  t.match(served.app.realIp.stats(), { connections: 1, source: { 'proxy-protocol': 1 } })
})
