import { formatAddress } from '../address/address'
import type { SynReader } from '../kernel/saved-syn'
import { createEndpoint, type Endpoint } from '../kernel/sockaddr'
import { decodeSender, hasPayload } from '../kernel/tcp-header'
import { kernelSources, type Options } from '../options/options'
import { chooseSources, type KernelAccess, type Senders } from '../sources/choose'
import type { Source } from '../sources/source'
import { type Checks, Guard, type Sender } from '../trust/guard'
import type { Suspicions } from '../trust/suspicions'
import { readSegmentOptions } from './segment-options'
import type { Asked, Seen } from './sighting'

/** What is read before the plugin decides, because it may reset the connection. */
export type Look = Pick<Seen, 'transportPeer' | 'syn' | 'sources'>

/** Looks at connections, and keeps each look by descriptor while the connection is examined. */
export class Looks {
  /** Whether trusted peers send PROXY headers. The plugin then asks no kernel source. */
  readonly awaitsHeaders: boolean
  readonly #hasPolicy: boolean
  readonly #syn: SynReader
  readonly #asked: ReadonlyArray<Source>
  readonly #notAsked: ReadonlyArray<Asked>
  readonly #looks = new Map<number, Look>()
  readonly #endpoint = createEndpoint()

  constructor ({ libc, syn }: Senders, { toa, trustedPeers, proxyProtocol }: Options) {
    this.awaitsHeaders = proxyProtocol !== undefined
    this.#hasPolicy = trustedPeers !== undefined
    this.#syn = syn
    const fromSyn = toa !== undefined && toa.silentOnSyn === undefined
    const sources = kernelSources.filter((name) => name !== 'saved-syn' || fromSyn)
    this.#asked = this.awaitsHeaders ? [] : chooseSources(libc, syn, { sources, toa, require: false }, () => {})
    this.#notAsked = fromSyn || this.awaitsHeaders ? [] : [{ source: 'saved-syn', reason: 'not-asked' }]
  }

  /** Looks at a connection once. */
  lookAt (fd: number): void {
    if (!this.#looks.has(fd)) this.#looks.set(fd, this.#look(fd))
  }

  /** Returns the look at a connection, if any, and forgets it. */
  take (fd: number): Look | undefined {
    const look = this.#looks.get(fd)
    this.#looks.delete(fd)
    return look
  }

  #look (fd: number): Look {
    const syn = this.#syn
    const endpoint = this.#endpoint
    // Without a policy the plugin does not read the saved SYN.
    const known = this.#hasPolicy ? syn.tcp >= 0 : syn.read(fd, endpoint)
    if (known) decodeSender(syn.bytes, syn.tcp, endpoint)
    const transportPeer = known ? { ...describeEndpoint(endpoint), by: 'saved-syn' as const } : null
    const results = this.#asked.map((source): Asked => {
      const reason = source.read(fd, endpoint)
      return { source: source.name, ...(reason === undefined ? describeEndpoint(endpoint) : { reason }) }
    })
    return {
      transportPeer,
      syn: known
        ? { options: readSegmentOptions(syn.bytes, syn.length), payload: hasPayload(syn.bytes, syn.tcp) }
        : null,
      sources: [...results, ...this.#notAsked]
    }
  }
}

/** The plugin's guard, which also looks at each connection before its sources are asked. */
export class WatchingGuard extends Guard {
  readonly #looks: Looks

  constructor (access: KernelAccess, checks: Checks, suspicions: Suspicions, looks: Looks) {
    super({
      ...access,
      resolve (fd, into, sender) {
        looks.lookAt(fd)
        return access.resolve(fd, into, sender)
      }
    }, checks, suspicions)
    this.#looks = looks
  }

  /** If a header is awaited, no source is asked, and the saved SYN soon belongs to another connection. */
  override readSender (fd: number): Sender {
    const sender = super.readSender(fd)
    if (this.#looks.awaitsHeaders) this.#looks.lookAt(fd)
    return sender
  }
}

export const describeEndpoint = (endpoint: Endpoint): { address: string, port: number } =>
  ({ address: formatAddress(endpoint), port: endpoint.port })
