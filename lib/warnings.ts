import type { FastifyBaseLogger } from 'fastify'

/** The dangers that are named once each. docs/troubleshooting.md has the cure of each. */
const messages = {
  FORGEABLE: "no 'trustedPeers' is set: whoever reaches this port can forge the address. List the balancers, or write " +
    "trustedPeers: 'any' if only they can reach it",
  TRUST_PROXY: "a kernel module rewrites the socket's remote address, which Fastify's 'trustProxy' tests: a forged " +
    "address can become a trusted proxy. Use 'forwarded' of this plugin instead of 'trustProxy'",
  DISAGREE: 'getpeername gives an address that is neither the one from vtoa nor the transport peer: another program ' +
    'rewrites it, an eBPF program for instance',
  SIDECAR: 'a connection that is not from a trusted peer comes from this host itself: a side-car or a proxy on this ' +
    'host hides the balancer',
  EMPTY_SYN: 'saved SYNs come back empty: SYN cookies, as in a SYN flood, or connections begun before this server listened. The ' +
    'transport peer is looked up another way, which is slower',
  OVERLAP: "'forwarded.trust' overlaps 'trustedPeers': an address can be a balancer or a proxy in front of it, not both"
} as const

export type WarningCode = keyof typeof messages

/** Logs each warning once. */
export class Warnings {
  readonly #log: Pick<FastifyBaseLogger, 'warn'>
  readonly #given = new Set<WarningCode>()

  constructor (log: Pick<FastifyBaseLogger, 'warn'>) {
    this.#log = log
  }

  warn (code: WarningCode): void {
    if (this.#given.has(code)) return
    this.#given.add(code)
    safely(() => { this.#log.warn({ code: `FST_REAL_IP_${code}` }, `fastify-real-ip: ${messages[code]}`) })
  }
}

/** Logs, where nobody could catch what a logger throws: a serializer of the user's, say. */
export function safely (log: () => void): void {
  try {
    log()
  } catch {
    // The connection counts for more than the line.
  }
}
