import type { RealAddress } from '../../types'
import { parseAddressPort } from '../address/address-port'
import { linesFromLast } from './header-lines'

// Protocol and host that the client requested, as reported by the hop that named the client.

interface Origin {
  readonly protocol?: string | undefined
  readonly host?: string | undefined
}

/** The request's protocol and host in a Forwarded element, by answer. */
const origins = new WeakMap<RealAddress, Origin>()

export function rememberOrigin (answer: RealAddress, origin: Origin): void {
  if (origin.protocol !== undefined || origin.host !== undefined) origins.set(answer, origin)
}

const protocols: Readonly<Record<string, 'http' | 'https'>> = { http: 'http', https: 'https', ws: 'http', wss: 'https' }

/**
 * The protocol that the client used with the proxy, if the answer came from the forwarding header `header`: proto of
 * the same element of Forwarded; X-Forwarded-Proto with any other header. `undefined`: use the connection's own.
 */
export function protocolOf (
  answer: RealAddress, header: string, rawHeaders: ReadonlyArray<string>
): 'http' | 'https' | undefined {
  const text = textOf(answer, header, rawHeaders, 'protocol', 'x-forwarded-proto')?.toLowerCase()
  return text !== undefined && Object.hasOwn(protocols, text) ? protocols[text] : undefined
}

/** The same for the host, with or without a port. */
export function hostOf (answer: RealAddress, header: string, rawHeaders: ReadonlyArray<string>): string | undefined {
  const text = textOf(answer, header, rawHeaders, 'host', 'x-forwarded-host')
  return text !== undefined && isHost(text) ? text : undefined
}

function textOf (
  answer: RealAddress, header: string, rawHeaders: ReadonlyArray<string>, key: keyof Origin, name: string
): string | undefined {
  if (answer.source !== 'forwarded') return undefined
  return header === 'forwarded' ? origins.get(answer)?.[key] : lastEntry(rawHeaders, name)
}

/** Like Fastify: the last entry of the last line. */
function lastEntry (rawHeaders: ReadonlyArray<string>, name: string): string | undefined {
  const [line] = linesFromLast(rawHeaders, name)
  return line?.slice(line.lastIndexOf(',') + 1).trim()
}

/** RFC 3986 §3.2.2 and §3.2.3, with registered names limited to DNS names. */
function isHost (text: string): boolean {
  if (text.startsWith('[')) return !text.includes('%') && parseAddressPort(text) !== undefined
  const [, port = '0'] = /^[\w.-]{1,255}(?::(\d{1,5}))?$/.exec(text) ?? [undefined, 'none']
  return Number(port) < 65536
}
