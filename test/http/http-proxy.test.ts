import type { AddressInfo } from 'node:net'
import httpProxy, { type FastifyHttpProxyOptions } from '@fastify/http-proxy'
import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import realIp from 'fastify-real-ip'
import { readPage } from '../docs/markdown'
import { type Kind, kinds, listen } from '../kinds'

// The recipe of docs/deployment.md for @fastify/http-proxy, as it stands there, with each client that it can use.

const onLinux = { skip: process.platform !== 'linux' && 'the sender of packets is known on Linux alone' }
const CLIENT = '127.0.0.66'
const [http] = kinds as [Kind]
const clients = { 'undici, the default': {}, 'http of Node.js': { http: {} } }

type Run = (Fastify: unknown, realIp: unknown, httpProxy: unknown) => Promise<FastifyInstance>

function readRecipe (): Run {
  const block = readPage('docs/deployment.md').blocks.find(({ code }) => code.includes('@fastify/http-proxy'))
  const code = block!.code.replace(/^import .*$/gm, '')
  // eslint-disable-next-line no-new-func
  return new Function('Fastify', 'realIp', 'httpProxy', `return (async () => {${code}\nreturn app })()`) as Run
}

for (const [name, client] of Object.entries(clients)) {
  t.test(name, onLinux, async (t) => {
    const upstream = Fastify({ forceCloseConnections: true })
    upstream.get('/', ({ headers }) => headers)
    t.teardown(() => upstream.close())
    await upstream.listen({ port: 0, host: '127.0.0.1' })
    const { port } = upstream.server.address() as AddressInfo

    const app = await readRecipe()(Fastify, realIp, async (app: FastifyInstance, options: FastifyHttpProxyOptions) => {
      await app.register(httpProxy, { ...options, upstream: `http://127.0.0.1:${port}`, ...client })
    })
    t.teardown(() => app.close())
    const { get, close } = await http.connect(await listen(app), { localAddress: CLIENT })
    for (const forged of [{ 'x-forwarded-for': '203.0.113.7', forwarded: 'for=203.0.113.7' }, {}]) {
      const { 'x-forwarded-for': address, forwarded, accept } = await get('/', { ...forged, accept: 'text/plain' })
      t.strictSame([address, forwarded, accept], [CLIENT, undefined, 'text/plain'])
    }
    await close()
  })
}
