import type { FastifyBaseLogger } from 'fastify'
import { createWarning } from 'process-warning'

/** Warnings that are logged once each. docs/troubleshooting.md explains each. */
const messages = {
  FORGEABLE: "'trustedPeers' is not set: anyone who reaches this port can forge the address. List the balancers, or " +
    "set trustedPeers: 'any' if only they can reach it",
  EVERYBODY: "'trustedPeers', 'proxyProtocol.from' or 'forwarded.trust' contains a range of all addresses: every " +
    "host is believed. List the balancers and proxies, or set trustedPeers: 'any' if only they can reach this port",
  TRUST_PROXY: "a kernel module rewrites the socket's remote address, which Fastify's 'trustProxy' checks: a forged " +
    "address can become a trusted proxy. Use this plugin's 'forwarded' instead of 'trustProxy'",
  DISAGREE: 'getpeername returns an address that is neither the one from vtoa nor the transport peer: another ' +
    'program rewrites it, for example an eBPF program',
  SIDECAR: 'a connection that is not from a trusted peer comes from this host itself: a sidecar or a proxy on this ' +
    'host hides the balancer. A health check or your own curl looks the same',
  EMPTY_SYN: 'no SYN was saved for a connection: SYN cookies, as in a SYN flood; a connection opened before this ' +
    'server listened; or another program reads saved SYNs first. The sender is looked up with sock_diag, which is ' +
    'slower',
  NO_SOCK_DIAG: 'the kernel refuses sock_diag (seccomp, or AF_NETLINK forbidden): the sender of connections without ' +
    "a saved SYN, as in a SYN flood, is unknown, and 'unverified' decides about them",
  ROUND_ROBIN: 'this process has no listening socket of its own (a cluster worker, whose primary accepts): the ' +
    'sender of each connection is looked up with sock_diag, which is slower. Give each worker a socket with listen({ ' +
    'reusePort: true }), Node.js 22.12 or later, or one worker with listen({ exclusive: true })',
  NO_TOA: 'the first hundred connections of trusted peers carry no client address: the kernel module is missing, or ' +
    'the balancer sends none. All clients share the address of their balancer',
  UNOBSERVED: "no server of this plugin accepted a request's connection: the sender is unknown, and 'unverified' " +
    'decides about it',
  OVERLAP: "'forwarded.trust' overlaps 'trustedPeers': an address can be a balancer or a proxy in front of it, not " +
    "both. Hosts that write TOA belong in 'trustedPeers', hosts that write the header in 'forwarded.trust'"
} as const

export type WarningCode = keyof typeof messages

const ERROR_INTERVAL = 1000 // milliseconds

type Log = Pick<FastifyBaseLogger, 'warn' | 'error' | 'info'> & { isLevelEnabled?: (level: string) => boolean }

/** Logs each warning once, or emits it as a process warning if the log is off. Logs errors at most once a second. */
export class Warnings {
  readonly #log: Log
  readonly #given = new Set<string>()
  #errorAt = -Infinity

  constructor (log: Log) {
    this.#log = log
  }

  warn (code: WarningCode): void {
    this.#warn(code, messages[code])
  }

  /** An option that neither this plugin nor Fastify knows. */
  unknownOption (name: string): void {
    this.#warn('UNKNOWN_OPTION', `'${name}' is not an option of this plugin, and has no effect`)
  }

  info (message: string): void {
    safely(() => { this.#log.info(message) })
  }

  readonly error = (message: string, error?: unknown): void => {
    const now = performance.now()
    if (now - this.#errorAt < ERROR_INTERVAL) return
    this.#errorAt = now
    safely(() => { this.#log.error({ err: error }, `fastify-real-ip: ${message}`) })
  }

  readonly searchFailed = (error: unknown): void => {
    this.error('a search for the sender of a connection failed', error)
  }

  #warn (what: string, message: string): void {
    if (this.#given.has(what + message)) return
    this.#given.add(what + message)
    const code = `FST_REAL_IP_${what}`
    safely(() => {
      if (this.#log.isLevelEnabled === undefined || this.#log.isLevelEnabled('warn')) {
        this.#log.warn({ code }, `fastify-real-ip: ${message}`)
      }
      if (this.#log.isLevelEnabled?.('warn') !== true) warnProcess(code, message)
    })
  }
}

const ofProcess = new Map<string, () => void>()

function warnProcess (code: string, message: string): void {
  let warning = ofProcess.get(code)
  if (warning === undefined) {
    warning = createWarning({ name: 'FastifyRealIpWarning', code, message }) as unknown as () => void
    ofProcess.set(code, warning)
  }
  warning()
}

/** Logs without throwing: a user's serializer may throw. */
function safely (log: () => void): void {
  try {
    log()
  } catch {
    // A failed log line must not break the connection.
  }
}
