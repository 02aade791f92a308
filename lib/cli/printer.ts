import type { Socket } from 'node:net'
import type { RealAddress } from '../../types'
import type { PeerSearch } from '../kernel/peer-search'
import type { Options } from '../options/options'
import { Tally } from '../trust/tally'
import type { Handshakes } from './capture'
import { describeEndpoint, type Look, type Looks } from './looks'
import { Modules, type SocketFamily } from './modules'
import { noteOn } from './seen'
import type { Seen } from './sighting'

/** A connection since it was accepted. */
export interface Arrived {
  readonly fd: number
  readonly connection: number
  readonly time: string
  /** For held connections. */
  look?: Look | undefined
  header?: ReadonlyArray<string>
  sender?: string
}

/** What the printer needs. */
export interface Printing {
  readonly options: Options
  readonly search: PeerSearch
  readonly handshakes: Handshakes
  readonly looks: Looks
  readonly arrived: WeakMap<object, Arrived>
  /** The family of the listening socket. */
  readonly listener: () => SocketFamily
  readonly print: (seen: Seen) => void
}

// For a connection that was closed before it could be examined.
const unseen: Look = { transportPeer: null, syn: null, sources: [] }

/** Prints each connection when it is counted: after the decision, before it is handed over. */
export class Printer extends Tally {
  readonly #printing: Printing
  readonly #modules = new Modules()

  constructor (printing: Printing) {
    super()
    this.#printing = printing
  }

  override get hasSubscribers (): boolean { return true }

  override publish (socket: object, realAddress: RealAddress): void {
    const { search, looks, arrived } = this.#printing
    const about = arrived.get(socket) as Arrived
    const look: Look = { ...unseen, ...about.look ?? looks.take(about.fd) }
    const decision = describeDecision(realAddress, (socket as Socket).destroyed)
    const found = realAddress.transportPeer
    const print = (transportPeer: Seen['transportPeer']) => { this.#print(about, { ...look, transportPeer }, decision) }
    if (look.transportPeer !== null) print(look.transportPeer)
    else if (found !== undefined) print({ ...found, by: 'sock_diag' })
    else search.ask(about.fd, (peer) => { print(peer ? { ...describeEndpoint(peer), by: 'sock_diag' } : null) })
  }

  #print (about: Arrived, look: Look, decision: Seen['decision']): void {
    const { options, handshakes, looks, listener, print } = this.#printing
    const { connection, time, header } = about
    const { transportPeer } = look
    if (transportPeer !== null) about.sender = transportPeer.address
    const ack = transportPeer && handshakes.take(transportPeer)
    const facts = { ...look, ack }
    const notes = looks.awaitsHeaders
      ? noteOnStranger(decision.trust)
      : noteOn(facts, {
        captureRefused: handshakes.refused,
        asks: options.toa === undefined,
        loaded: this.#modules.look(facts),
        listener: listener()
      })
    print({ connection, time, ...facts, ...(header && { header }), decision, notes })
  }
}

function describeDecision (
  { address, port, family, source, trust, reason, proxyProtocol }: RealAddress, reset: boolean
): Seen['decision'] {
  return {
    address,
    port,
    family,
    source,
    trust,
    ...(reason && { reason }),
    ...(proxyProtocol && { proxyProtocol }),
    reset
  }
}

const noteOnStranger = (trust: RealAddress['trust']): string[] =>
  trust === 'untrusted' ? ['The peer is not in --trusted-peers: its first bytes are not read as a header.'] : []
