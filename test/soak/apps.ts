import type { Protocol } from '../lab/speak'

/**
 * The processes of the soak: an ordinary one and a round-robin worker of node:cluster, both beside the stand-in for vtoa;
 * and one in a cgroup that has the programs of `attach` instead.
 */
export const places = ['process', 'worker', 'attached'] as const
export type Place = typeof places[number]

/** One server of the soak. */
export interface App {
  readonly place: Place
  readonly protocol: Protocol
  /** whether it was given `trustedPeers` */
  readonly policy: boolean
  /** whether some of its peers send PROXY headers; its list is never swapped */
  readonly proxy: boolean
  /** whether X-Forwarded-For counts */
  readonly forwarded: boolean
  /** those with a policy listen on IPv4 sockets, the others on both families */
  readonly host: '127.0.0.1' | '::'
}

const each = (protocols: readonly Protocol[], app: Partial<App>): App[] => protocols.map((protocol) =>
  ({ place: 'process', protocol, policy: true, proxy: false, forwarded: false, host: app.policy === false ? '::' : '127.0.0.1', ...app }))

const all = ['http', 'https', 'h2c', 'h2'] as const

export const apps: readonly App[] = [
  ...each(all, { policy: false }),
  ...each(all, {}),
  ...each(all, { proxy: true }),
  ...each(['http', 'h2'], { forwarded: true }),
  ...each(['http', 'h2'], { place: 'worker' }),
  ...each(['http', 'h2'], { place: 'attached' }),
  ...each(['http', 'h2c'], { place: 'attached', policy: false })
]

export const servers = ['without a policy', 'with a policy', 'with PROXY headers', 'with X-Forwarded-For', 'round-robin', 'attached'] as const

export function serverOf ({ place, policy, proxy, forwarded }: App): typeof servers[number] {
  if (place !== 'process') return place === 'worker' ? 'round-robin' : 'attached'
  if (proxy) return 'with PROXY headers'
  if (forwarded) return 'with X-Forwarded-For'
  return policy ? 'with a policy' : 'without a policy'
}

/** Of the servers with PROXY headers: who sends one, and who is trusted as well, to write TOA. */
export const headerPeers: readonly string[] = ['127.0.0.2', '127.0.0.4']
export const toaPeers: readonly string[] = ['127.0.0.5', '127.0.0.6']

/** Whose X-Forwarded-For counts: some peers', and that of all clients that an IPv4 claim can name. */
export const hops: readonly string[] = ['20.0.0.0/8', '127.0.0.3', '127.0.0.6']
export const isHop = (address: string): boolean => address.startsWith('20.') || hops.includes(address)

/** What stands in for vtoa answers both ways, or in one alone; 1348 with nothing behind the family; or not at all. */
export const modules = ['both', 'short', 'getpeername', '1348', 'off'] as const
/** What is attached, with `--getpeername` or without; `of some`: to believe `attachedPeers` alone. */
export const attachments = ['1348', 'off', 'both of some', 'both', '1348 of some'] as const
export type Module = typeof modules[number] | typeof attachments[number]

export const attachedPeers: readonly string[] = ['127.0.0.1', '127.0.0.4', '127.0.0.5', '::1']

/** What a server process tells of a round that has ended. */
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

/** What server processes hold, with no connection open. */
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
