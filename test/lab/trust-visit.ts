import http from 'node:http'
import http2 from 'node:http2'
import { isIPv6 } from 'node:net'
import type { Duplex } from 'node:stream'
import { text } from 'node:stream/consumers'
import { once } from 'node:events'
import tls from 'node:tls'
import { balancers, through } from '../player/balancers'
import { serverAddresses } from '../player/namespace'
import type { Connection, Handshake, Player } from '../player/player'
import { toa, toaKinds } from '../player/tcp-options'

export type Protocol = 'http' | 'https' | 'h2c' | 'h2'

/** A connection to a server of the namespace, from any source address, whose segments claim a client or none. */
export interface Visit {
  readonly protocol: Protocol
  readonly port: number
  /** The transport peer. */
  readonly source: string
  readonly sourcePort?: number
  readonly claim?: { readonly address: string, readonly port: number } | undefined
  /** The claim's option, where it has another form. */
  readonly toa?: Uint8Array | undefined
  /** Another claim, on the SYN alone. */
  readonly claimOnSyn?: { readonly address: string, readonly port: number } | undefined
}

export interface Visitor {
  readonly sourcePort: number
  /** The parsed answer, or 'reset' where the server ends the connection instead. */
  get (path?: string, headers?: Record<string, string>): Promise<any>
  /** How many bytes the server has sent. */
  received (): number
  close (): void
}

const familyOf = (address: string) => isIPv6(address) ? 'IPv6' : 'IPv4'
const option = ({ address, port }: { address: string, port: number }) => toa(toaKinds.alibaba[familyOf(address)], address, port)

export function handshakeOf ({ claim, toa = claim && option(claim), claimOnSyn }: Pick<Visit, 'claim' | 'toa' | 'claimOnSyn'>): Handshake {
  if (toa === undefined) return {}
  const stamped = through(balancers.lvs, toa)
  return claimOnSyn === undefined ? stamped : { ...stamped, syn: through(balancers.lvs, option(claimOnSyn)).syn }
}

export async function visit (player: Player, given: Visit): Promise<Visitor> {
  const { source, sourcePort, port, protocol } = given
  const destination = serverAddresses[familyOf(source)]
  const connection = await player.connect({ source, sourcePort, destination, port, ...handshakeOf(given) })
  let received = 0
  const { receiveSegment } = connection
  connection.receiveSegment = (segment) => {
    received += segment.payload.length
    receiveSegment.call(connection, segment)
  }
  const ask = speak(connection, protocol)
  return {
    sourcePort: connection.sourcePort,
    async get (path = '/', headers = {}) {
      try {
        return JSON.parse(await ask(path, headers))
      } catch (error) {
        if (await connection.ending() === 'RST') return 'reset'
        return 'closed'
      }
    },
    received: () => received,
    close () { connection.destroy() }
  }
}

type Ask = (path: string, headers: Record<string, string>) => Promise<string>

function speak (connection: Connection, protocol: Protocol): Ask {
  const alpn = protocol === 'h2' ? 'h2' : 'http/1.1'
  const secure = protocol === 'https' || protocol === 'h2'
    ? tls.connect({ socket: connection, rejectUnauthorized: false, ALPNProtocols: [alpn] }).on('error', () => {})
    : connection
  return protocol === 'http' || protocol === 'https' ? speakHttp1(secure) : speakHttp2(secure)
}

function speakHttp1 (socket: Duplex): Ask {
  // What an agent asks of a socket that it keeps.
  const kept = Object.assign(socket, { setKeepAlive () {}, setTimeout () {}, ref () {}, unref () {} })
  const agent = Object.assign(new http.Agent({ keepAlive: true, maxSockets: 1 }), { createConnection: () => kept })
  return async (path, headers) => {
    const [response] = await once(http.get({ agent, path, headers, host: 'x' }), 'response') as [http.IncomingMessage]
    return await text(response)
  }
}

function speakHttp2 (socket: Duplex): Ask {
  const session = http2.connect('http://x', { createConnection: () => socket })
  session.on('error', () => {})
  return async (path, headers) => await text(session.request({ ...headers, ':path': path }))
}
