import type { RealAddress } from 'fastify-real-ip'

/** A connection to make. */
export interface Visit {
  /** The sender of the packets: the trusted balancer, or another host. */
  readonly by: 'balancer' | 'stranger'
  /** The client's address in TOA; `undefined`: no TOA. */
  readonly client?: string
}

/** The handler's answer. */
export interface Answer {
  readonly realAddress: RealAddress
  /** Fastify's own. */
  readonly ip: string
}

/** The result of a visit. */
export interface Seen {
  readonly visit: Visit
  /** Absent if the connection was reset. */
  readonly answer?: Answer
  /** The line of the access log. */
  readonly log?: string
}

/** The client port in TOA. */
export const CLIENT_PORT = 51234

export function planVisits (client: string | undefined): readonly Visit[] {
  const clients = client === undefined ? ['203.0.113.7', '2001:db8::7'] : [client]
  return [
    ...clients.map((client): Visit => ({ by: 'balancer', client })),
    { by: 'balancer' },
    { by: 'stranger', client: clients[0] as string }
  ]
}
