import { networkInterfaces } from 'node:os'
import { parseAddress, sameAddress } from '../address/address'
import type { Endpoint } from '../kernel/sockaddr'
import type { PeerSearch } from '../kernel/peer-search'
import type { Warnings } from '../warnings'
import { isLoopback } from './plausible'
import type { Checked } from './checked'

// One of this many claims is compared with getpeername.
const SAMPLED = 1024
// This many connections of trusted peers without any claim cause a warning.
const CLAIMLESS = 100

/** Recognizes signs of a wrong setup, and warns of each once. Decides nothing. */
export class Suspicions {
  readonly #warnings: Warnings
  readonly #trustProxy: boolean
  readonly #isProxy: (peer: Endpoint) => boolean
  #claims = 0
  #claimless = 0
  #isRewritten = false
  #hasSeenStranger = false

  /**
   * `trustProxy`: whether Fastify's own is set. `isProxy`: whether `forwarded.trust` includes a peer, which may be on
   * this host.
   */
  constructor (warnings: Warnings, trustProxy: boolean, isProxy: (peer: Endpoint) => boolean) {
    this.#warnings = warnings
    this.#trustProxy = trustProxy
    this.#isProxy = isProxy
  }

  /** A listening socket keeps SYNs, and a connection has none. */
  emptySyn (): void {
    this.#warnings.warn('EMPTY_SYN')
  }

  /** A source claims a client that differs from the transport peer. */
  rewritten (): void {
    if (this.#isRewritten) return
    this.#isRewritten = true
    if (this.#trustProxy) this.#warnings.warn('TRUST_PROXY')
  }

  /** vtoa claims a client: some of these are compared with getpeername. */
  sample (search: PeerSearch, fd: number, claim: Endpoint): void {
    if (this.#claims++ % SAMPLED !== 0) return
    this.rewritten()
    if (search.disagrees(fd, claim)) this.#warnings.warn('DISAGREE')
  }

  /** A connection was ruled on. */
  ruled ({ peer, column }: Checked, trust: string, reason: string | undefined): void {
    if (trust === 'untrusted' && !this.#hasSeenStranger && peer !== undefined && !this.#isProxy(peer)) {
      this.#hasSeenStranger = true
      if (isThisHost(peer)) this.#warnings.warn('SIDECAR')
    }
    if (this.#claimless < 0 || trust !== 'trusted') return
    if (column !== 'absent') this.#claimless = -1
    else if (reason === 'no-toa' && ++this.#claimless === CLAIMLESS) {
      this.#claimless = -1
      this.#warnings.warn('NO_TOA')
    }
  }

  /** A request came on a connection that no server of the plugin accepted. */
  unobserved (): void {
    this.#warnings.warn('UNOBSERVED')
  }
}

function isThisHost (peer: Endpoint): boolean {
  try {
    return isLoopback(peer) || Object.values(networkInterfaces()).flat().some((own) => {
      const address = own && parseAddress(own.address)
      return address !== undefined && sameAddress(address, peer)
    })
  } catch {
    // E.g. no descriptor is left.
    return false
  }
}
