import type { FastifyRequest } from 'fastify'
import { requestOf } from './arrived'
import { answer } from './child'
import { IPv4 } from './network'
import { resolvers, type Variant } from './variants'

// A server's work for a request's address, in a hot loop: node resolve-server.js VARIANT

const CALLS = 4096

// The symbols with which Fastify creates requests.
const { kRouteContext } = require('fastify/lib/symbols') as { kRouteContext: symbol }
type Hook = (request: FastifyRequest, reply: object, next: () => void) => void
interface Inside {
  readonly constructor: new (...args: unknown[]) => FastifyRequest
  readonly [context: symbol]: { readonly onRequest: readonly Hook[] | null }
}

async function main (name: string): Promise<void> {
  const variant = resolvers[name] as Variant
  const arrived = await requestOf(variant)
  const { id, params, raw, query, log } = arrived
  const { [kRouteContext]: context, constructor: Request } = arrived as unknown as Inside
  const hooks = context?.onRequest ?? []
  const reply = {}
  const next = () => {}
  // V8 would eliminate an unused result.
  const seen: { request?: FastifyRequest, address?: string | undefined } = {}

  function once (): string | undefined {
    const request = new Request(id, params, raw, query, log, context)
    seen.request = request
    for (const hook of hooks) hook(request, reply, next)
    return variant.address(request)
  }

  const expected = IPv4.from ?? IPv4.host
  if (once() !== expected) throw new Error(`${name} gives ${once()}, not ${expected}`)
  answer({
    slice () {
      const start = performance.now()
      for (let i = 0; i < CALLS; i++) seen.address = once()
      return (performance.now() - start) * 1e6 / CALLS
    }
  })
}

main(process.argv[2] as string)
