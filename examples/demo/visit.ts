import type { RealAddress } from 'fastify-real-ip'

/** One connection to make. */
export interface Visit {
  /** Who sends the packets: the balancer that is trusted, or somebody else. */
  readonly by: 'balancer' | 'stranger'
  /** The client's address that TOA carries; without it there is no TOA. */
  readonly client?: string
}

/** What the handler answered. */
export interface Answer {
  readonly realAddress: RealAddress
  /** Fastify's own. */
  readonly ip: string
}

/** What came of a visit. */
export interface Seen {
  readonly visit: Visit
  /** Absent where the connection was reset. */
  readonly answer?: Answer
  /** The line of the access log. */
  readonly log?: string
}

/** The port of every client that TOA carries. */
export const CLIENT_PORT = 51234

export function planVisits (client: string | undefined): readonly Visit[] {
  const clients = client === undefined ? ['203.0.113.7', '2001:db8::7'] : [client]
  return [
    ...clients.map((client): Visit => ({ by: 'balancer', client })),
    { by: 'balancer' },
    { by: 'stranger', client: clients[0] as string }
  ]
}
