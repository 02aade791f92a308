import type { Protocol } from '../lab/speak'

/** One server of the soak. */
export interface App {
  readonly protocol: Protocol
  /** whether it was given `trustedPeers` */
  readonly policy: boolean
  /** whether some of its peers send PROXY headers; its list is never swapped */
  readonly proxy: boolean
  /** those with a policy listen on IPv4 sockets, the others on both families */
  readonly host: '127.0.0.1' | '::'
}

export const apps: readonly App[] = (['http', 'https', 'h2c', 'h2'] as const).flatMap((protocol) => [
  { protocol, policy: false, proxy: false, host: '::' },
  { protocol, policy: true, proxy: false, host: '127.0.0.1' },
  { protocol, policy: true, proxy: true, host: '127.0.0.1' }
] as const)

/** Of the servers with PROXY headers: who sends one, and who is trusted as well, to write TOA. */
export const headerPeers: readonly string[] = ['127.0.0.2', '127.0.0.4']
export const toaPeers: readonly string[] = ['127.0.0.5', '127.0.0.6']

/** What the server tells of a round that has ended. */
export interface Round {
  /** by app, what it says of each socket that it accepted, most of which are closed by now */
  readonly sockets: string[][]
  /** what was kept of requests in the round before */
  readonly requests: Array<{
    readonly id: number
    /** of the Fastify request, of the raw one, and of its stream or socket */
    readonly answers: [string, string, string]
  }>
  /** how many of all these had a descriptor that serves, or served, another connection by now */
  readonly reused: number
}

/** What the server's process holds, with no connection open. */
export interface Holdings {
  /** in bytes, after garbage collection */
  readonly heap: number
  /** in bytes: ArrayBuffers, and what objects of C++ hold */
  readonly external: number
  readonly rss: number
  readonly fds: number
  /** of the plugin on the servers, and of anybody on the process */
  readonly listeners: number
  /** whether somebody wants to know which servers begin to listen */
  readonly subscribed: boolean
  /** connections that the servers handed over, and those that the plugin counted; of these, how many it reset */
  readonly accepted: number
  readonly counted: number
  readonly rejected: number
}
