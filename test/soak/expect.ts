import { type App, headerPeers, toaPeers } from './apps'

// What an answer may be, from what the client wrote on the connection and from what the module and the list were while
// it was made and asked about. Nothing here looks at what the plugin does.

export const modules = ['both', 'short', 'getpeername', '1348', 'off'] as const
/** How the stand-in answers: both ways, one alone; 1348 with nothing behind the family; or not at all. */
export type Module = typeof modules[number]

export interface Endpoint {
  readonly address: string
  readonly port: number | undefined
}

/**
 * What the sources can have found: the claim, from 1348 or from getpeername; that there is none; the zeros of a short
 * answer; what a PROXY header says; or nothing at all, for the client had gone.
 */
type Found = '1348' | 'getpeername' | 'peer' | 'zeros' | 'header' | 'gone'

const trustedOfProxy: ReadonlySet<string> = new Set([...headerPeers, ...toaPeers])

/** As the client knows it. */
export interface Connection {
  readonly app: App
  /** the client's own end */
  readonly peer: Endpoint
  /** what it wrote in its TOA, if any */
  readonly claim: Endpoint | undefined
  /** the client that its PROXY header names; null: a header that names none */
  readonly header?: Endpoint | null
  /** whether the client goes before it has an answer */
  readonly leaves: boolean
  /** the round and the state in which it was begun */
  readonly round: number
  readonly begun: number
  /** whether the app was known by then to ask for 1348 */
  readonly awake: boolean
  /** whether the client had an answer on it */
  answered?: true
  /** what was found, as far as answers have told */
  found?: readonly Found[]
}

interface State {
  readonly module: Module
  /** how often the module was switched before */
  readonly switches: number
  /** the transport peers that are trusted; two lists while they are swapped */
  readonly lists: ReadonlyArray<ReadonlySet<string>>
}

/** `wrong`; or right: the only address that was possible, or one of two because of a switch meanwhile. */
export type Verdict = 'exact' | 'window' | 'wrong'

export class Expectations {
  readonly #states: State[]
  readonly #awake = new Set<App>()
  /** those that were seen to ask for 1348 after a time without it */
  readonly foundAgain = new Set<App>()
  #hasBeenAway = false

  constructor (list: ReadonlySet<string>) {
    this.#states = [{ module: 'off', switches: 0, lists: [list] }]
  }

  /** The state of the moment. */
  get now (): number { return this.#states.length - 1 }

  get module (): Module { return this.#at(this.now).module }

  #at (state: number): State {
    return this.#states[state] as State
  }

  /** The module was switched just now. */
  switchModule (module: Module): void {
    const { switches, lists } = this.#at(this.now)
    this.#states.push({ module, switches: switches + 1, lists })
    this.#awake.clear()
    if (module === 'off' || module === 'getpeername') this.#hasBeenAway = true
  }

  /** The list is about to be swapped; call what it returns when that is done. */
  swapList (list: ReadonlySet<string>): () => void {
    const state = this.#at(this.now)
    this.#states.push({ ...state, lists: [...state.lists, list] })
    return () => { this.#states.push({ ...this.#at(this.now), lists: [list] }) }
  }

  /**
   * Whether an app asks for 1348, which it leaves alone for a second where it did not exist: a connection that was begun
   * since the last switch has shown it. No clock says so, for a process that gets no processor keeps no time.
   */
  isAwake (app: App): boolean {
    return this.#awake.has(app)
  }

  /** What may be answered; `since` is the state in which it was asked. */
  allowed (connection: Connection, since: number): Array<{ found: Found, answer: string }> {
    const lists = connection.app.proxy ? [trustedOfProxy] : new Set(this.#states.slice(since).flatMap(({ lists }) => lists))
    return (connection.found ?? this.#canFind(connection)).flatMap((found) =>
      [...connection.app.policy ? lists : [undefined]].map((list) => ({ found, answer: answerOf(found, connection, list) })))
  }

  /** Whether an answer can be; where `told` it is the connection's for certain, and what it tells of it is remembered. */
  judge (connection: Connection, answer: string, since: number, told = true): Verdict {
    const allowed = this.allowed(connection, since)
    const fitting = allowed.filter((one) => one.answer === answer || (one.found === 'gone' && isNone(answer)))
    if (fitting.length === 0) return 'wrong'
    // What was read of a connection stands.
    if (told) this.#remember(connection, fitting.map(({ found }) => found))
    return new Set(allowed.map((one) => addressOf(one.answer))).size === 1 ? 'exact' : 'window'
  }

  #remember (connection: Connection, found: readonly Found[]): void {
    connection.found = [...new Set(found)]
    if (!found.every((one) => one === '1348' || one === 'zeros')) return
    if (this.#at(connection.begun).switches !== this.#at(this.now).switches) return
    this.#awake.add(connection.app)
    if (this.#hasBeenAway) this.foundAgain.add(connection.app)
  }

  #canFind (connection: Connection): Found[] {
    if (connection.header !== undefined) return ['header']
    const states = this.#states.slice(connection.begun)
    const isSwitched = states[0]?.switches !== states.at(-1)?.switches
    const awake = connection.awake && !isSwitched
    const found = new Set(states.flatMap(({ module }) => canFind(module, connection, awake)))
    // What one start of the module has seen the next one does not know.
    if (isSwitched) found.add('peer')
    // Of a socket that is no longer connected there is no name.
    if (connection.leaves) found.add('peer').add('gone')
    return [...found]
  }
}

function canFind (module: Module, { app, claim }: Connection, awake: boolean): Found[] {
  if (claim === undefined || module === 'off') return ['peer']
  // The name of an IPv4 socket is no IPv6 address.
  const byName = app.host === '127.0.0.1' && claim.address.includes(':') ? 'peer' : 'getpeername'
  switch (module) {
    case 'getpeername': return [byName]
    case 'both': return awake ? ['1348'] : ['1348', byName]
    case '1348': return awake ? ['1348'] : ['1348', 'peer']
    case 'short': return awake ? ['zeros'] : ['zeros', 'peer']
  }
}

/** As the decision table of docs/trust.md has it. */
function answerOf (found: Found, { app, peer, claim, header }: Connection, list: ReadonlySet<string> | undefined): string {
  const claimed = found === '1348' || found === 'getpeername'
  const source = found === '1348' ? 'vtoa' : 'getpeername'
  if (found === 'gone') return 'undefined'
  if (found === 'header') return header == null ? text(peer, 'transport-peer', 'trusted', 'proxy-local') : text(header, 'proxy-protocol', 'trusted')
  if (!app.policy) {
    if (claimed) return text(claim as Endpoint, source, 'unchecked')
    return found === 'zeros' ? text(peer, 'transport-peer', 'unchecked', 'implausible') : text(peer, source, 'unchecked')
  }
  if (list?.has(peer.address) !== true) {
    return text(peer, 'transport-peer', 'untrusted', found === 'peer' ? undefined : 'untrusted-peer')
  }
  if (claimed) return text(claim as Endpoint, source, 'trusted')
  return text(peer, 'transport-peer', 'trusted', found === 'zeros' ? 'implausible' : 'no-toa')
}

/** How the server writes an answer. */
export function text ({ address, port }: { address: string | undefined, port: number | undefined }, source: string, trust: string, reason?: string): string {
  return `${address} ${port} ${source} ${trust} ${reason}`
}

export const isNone = (answer: string): boolean => answer.startsWith('undefined undefined none ')

const addressOf = (answer: string): string => answer.slice(0, answer.indexOf(' '))
