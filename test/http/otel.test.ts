import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Attributes, SpanKind } from '@opentelemetry/api'
import { HttpInstrumentation, type HttpInstrumentationConfig } from '@opentelemetry/instrumentation-http'
import { InMemorySpanExporter, NodeTracerProvider, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node'
import ts from 'typescript'
import t, { type Test } from 'tap'
import type { FastifyInstance } from 'fastify'
import realIp from 'fastify-real-ip'
import { readPage } from '../docs/markdown'
import { type Kind, kinds, listen, oneLoopback } from '../kinds'

// The recipe of docs/logging.md for OpenTelemetry's HTTP instrumentation, as it stands there.

const PROXY = '127.0.0.9'
const STRANGER = '127.0.0.66'
const headers = { 'x-forwarded-for': '203.0.113.7' }

type RequestHook = NonNullable<HttpInstrumentationConfig['requestHook']>

// Fastify's, for the recipe's free variable.
let app: FastifyInstance
let hook: RequestHook = () => {}

const exporter = new InMemorySpanExporter()
const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
const instrumentation = new HttpInstrumentation({ requestHook: (span, request) => { hook(span, request) } })
instrumentation.setTracerProvider(provider)
// It patches what is required from now on: the server's classes are the same.
for (const name of ['http', 'https']) require(name)

function readRecipe (): RequestHook {
  const block = readPage('docs/logging.md').blocks.find(({ code }) => code.includes('function requestHook'))
  const { outputText } = ts.transpileModule(block?.code ?? '', { compilerOptions: { target: ts.ScriptTarget.ES2022 } })
  // eslint-disable-next-line no-new-func
  return new Function('app', `${outputText.replace(/^export .*$/gm, '')}\nreturn requestHook`)(app) as RequestHook
}

type Asked = [attributes: Attributes, realIp: string | undefined, port: number]

async function spanOf (t: Test, kind: Kind, localAddress: string): Promise<Asked> {
  app = kind.create({ forceCloseConnections: true })
  await app.register(realIp, { forwarded: { trust: [PROXY] } })
  app.get('/', (request) => request.realAddress)
  t.teardown(() => app.close())
  const client = await kind.connect(await listen(app), { localAddress })
  exporter.reset()
  const { address } = await client.get('/', headers)
  await client.close()
  await app.close()
  const [span] = exporter.getFinishedSpans().filter((span) => span.kind === SpanKind.SERVER)
  return [span?.attributes ?? {}, address, client.localPort]
}

for (const kind of kinds.filter(({ name }) => name === 'http' || name === 'https')) {
  t.test(kind.name, { skip: oneLoopback }, async (t) => {
    hook = () => {}
    const [forged] = await spanOf(t, kind, STRANGER)
    t.equal(forged['client.address'], '203.0.113.7', 'without the recipe anybody writes it')

    hook = (span, request) => { readRecipe()(span, request) }
    for (const [localAddress, address] of [[STRANGER, STRANGER], [PROXY, '203.0.113.7']] as const) {
      const [attributes, real, port] = await spanOf(t, kind, localAddress)
      t.equal(real, address)
      t.match(attributes, { 'client.address': address, 'network.peer.address': localAddress, 'network.peer.port': port })
      t.equal(attributes['client.port'], localAddress === address ? port : undefined)
    }
  })
}

t.test('a client without a known address has none in the span', async (t) => {
  hook = (span, request) => { readRecipe()(span, request) }
  const [plain] = kinds as [Kind]
  app = plain.create({ forceCloseConnections: true })
  await app.register(realIp, { forwarded: { trust: [] } })
  app.get('/', (request) => request.realAddress)
  t.teardown(() => app.close())
  const folder = mkdtempSync(join(tmpdir(), 'fastify-real-ip-otel-'))
  t.teardown(() => rmSync(folder, { recursive: true }))
  await app.listen({ path: join(folder, 'server.sock') })
  const client = await plain.connect(0, { path: join(folder, 'server.sock') })
  exporter.reset()
  t.match(await client.get('/', headers), { reason: 'no-address' })
  await client.close()
  await app.close()
  const [span] = exporter.getFinishedSpans().filter((span) => span.kind === SpanKind.SERVER)
  t.equal(span?.attributes['client.address'], '')
})
