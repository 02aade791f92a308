import { IncomingMessage } from 'node:http'
import type { RealAddress } from '../types'
import type { TestClient } from '../types/testing'
import { formatAddress, parseAddress } from './address/address'
import { kClient } from './http/staged'
import { checkObject, invalid, quoted, show } from './options/values'
import { answer } from './trust/claim'

const sources = ['vtoa', 'nat64', 'getpeername', 'saved-syn', 'proxy-protocol', 'transport-peer', 'forwarded', 'peer',
  'none']
const trusts = ['trusted', 'untrusted', 'unverified', 'unchecked']
const example: Record<keyof TestClient, unknown> = {
  address: '203.0.113.7',
  port: 51234,
  source: 'vtoa',
  trust: 'trusted',
  reason: 'no-toa',
  transportPeer: { address: '10.0.0.2', port: 40000 }
}

/** Options for inject() that make its request come from a client. They set a property that no real request can have. */
export function fromClient (client: TestClient | string): { Request: object } {
  const realAddress = answerOf(typeof client === 'string' ? { address: client } : client)
  class Request extends IncomingMessage {}
  Object.defineProperty(Request.prototype, kClient, { value: realAddress })
  return { Request }
}

function answerOf (given: TestClient): RealAddress {
  const { address, port, source = 'vtoa', trust = 'trusted', reason, transportPeer } =
    checkObject<keyof TestClient>(given, "fromClient()'s client", example) as TestClient
  const parsed = address === undefined ? undefined : parseAddress(String(address))
  if (address !== undefined && parsed === undefined) {
    throw invalid(`'address' must be an IP address without zone, not ${show(address)}`)
  }
  if (!sources.includes(source)) throw invalid(`'source' takes ${quoted(sources)}, not ${show(source)}`)
  if (!trusts.includes(trust)) throw invalid(`'trust' takes ${quoted(trusts)}, not ${show(trust)}`)
  return answer({
    address: parsed && formatAddress(parsed),
    port,
    family: parsed?.family,
    source: parsed === undefined ? 'none' : source,
    ...(reason && { reason }),
    trust,
    transportPeer: transportPeer && Object.freeze({ address: transportPeer.address, port: transportPeer.port }),
    attempts: []
  })
}
