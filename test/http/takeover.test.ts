import http from 'node:http'
import net, { type AddressInfo } from 'node:net'
import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import realIp, { encodeProxyHeader, type FastifyRealIpOptions } from 'fastify-real-ip'
import { loadLibc } from '../../lib/kernel/libc'

// An application that holds connections takes over the server of one that never did, with native calls and without.

const isNative = typeof loadLibc() !== 'string'
const how = isNative ? 'with native calls' : 'without native calls'
const header = encodeProxyHeader({ source: { address: '203.0.113.7', port: 51234 }, destination: { address: '198.51.100.1', port: 443 } })

async function ask (port: number, first: Buffer): Promise<string> {
  const socket = net.connect(port, '127.0.0.1')
  let heard = ''
  socket.on('data', (part) => { heard += String(part) }).on('error', () => {})
  socket.write(Buffer.concat([first, Buffer.from('GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')]))
  await new Promise((resolve) => { socket.once('close', resolve) })
  return /"address":"([^"]+)"/.exec(heard)?.[1] ?? (heard === '' ? 'reset' : heard)
}

t.test(`PROXY headers from now on, ${how}`, async (t) => {
  const make = async (options: FastifyRealIpOptions, server?: http.Server): Promise<FastifyInstance> => {
    const app = Fastify({
      forceCloseConnections: true,
      ...(server && { serverFactory: (handler: http.RequestListener) => server.removeAllListeners('request').on('request', handler) })
    })
    await app.register(realIp, options)
    app.get('/', (request) => request.realAddress)
    return app
  }
  const first = await make({ trustedPeers: 'any' })
  await first.listen({ port: 0, host: '127.0.0.1' })
  const { server } = first
  const { port } = server.address() as AddressInfo
  t.equal(await ask(port, Buffer.alloc(0)), '127.0.0.1')

  server.listen = (() => {
    server.emit('listening')
    return server
  }) as typeof server.listen
  const next = await make({ trustedPeers: 'any', sources: ['proxy-protocol'] }, server)
  await next.listen({ port, host: '127.0.0.1' })
  t.equal(await ask(port, header), '203.0.113.7')
  t.equal(await ask(port, Buffer.alloc(0)), 'reset')
  t.match(next.realIp.stats(), { connections: 2, rejected: 1, reason: { 'proxy-missing': 1 } })
  await Promise.all([first.close(), next.close()])
  t.notOk(Object.hasOwn(server, 'emit'))
})

if (isNative) void t.spawn(process.execPath, ['--no-addons', __filename], { diagnostic: false }, 'without native calls')
