import { type App, attachedPeers, headerPeers, isHop, type Module, toaPeers } from './apps'

// What an answer may be, from what the client wrote on the connection and from what the module and the list were while
// it was made and asked about. Nothing here looks at what the plugin does.

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

/** What a request's X-Forwarded-For says to who believes it. */
export interface Forwarded {
  readonly lines: readonly string[]
  /** the farthest client that can be believed; undefined: it names none */
  readonly client: Endpoint | undefined
  readonly reason: 'forwarded-missing' | 'forwarded-malformed' | undefined
}

/** A question: the state in which it was asked, and what came along. */
export interface Asked {
  readonly since: number
  readonly forwarded?: Forwarded | undefined
}

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
  /** others had its port as well before the server told of them: of which of them it tells is not known */
  isShared?: true
  /** what was found, as far as answers have told */
  found?: readonly Found[]
}

interface State {
  /** two while they are switched */
  readonly modules: readonly Module[]
  /** how often the module was switched before, other than by `attach` in place of `attach`, which loses nothing */
  readonly switches: number
  /** the transport peers that are trusted; two lists while they are swapped */
  readonly lists: ReadonlyArray<ReadonlySet<string>>
}

/** `wrong`; or right: the only address that was possible, or one of two because of a switch meanwhile. */
export type Verdict = 'exact' | 'window' | 'wrong'

/** Of the servers of one process. */
export class Expectations {
  readonly #states: State[]
  readonly #awake = new Set<App>()
  /** those that were seen to ask for 1348 after a time without it */
  readonly foundAgain = new Set<App>()
  #hasBeenAway = false

  constructor (list: ReadonlySet<string>) {
    this.#states = [{ modules: ['off'], switches: 0, lists: [list] }]
  }

  /** The state of the moment. */
  get now (): number { return this.#states.length - 1 }

  get module (): Module { return this.#at(this.now).modules.at(-1) as Module }

  #at (state: number): State {
    return this.#states[state] as State
  }

  /** The module is about to be switched; call what it returns when that is done. */
  switchModule (module: Module, loses = true): () => void {
    const begin = (modules: readonly Module[]) => {
      const state = this.#at(this.now)
      this.#states.push({ ...state, modules, switches: state.switches + Number(loses) })
      if (loses) this.#awake.clear()
    }
    begin([this.module, module])
    return () => {
      begin([module])
      if (module === 'off' || module === 'getpeername') this.#hasBeenAway = true
    }
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

  /** What may be answered. */
  allowed (connection: Connection, { since, forwarded }: Asked): Array<{ found: Found, answer: string }> {
    const lists = connection.app.proxy ? [trustedOfProxy] : new Set(this.#states.slice(since).flatMap(({ lists }) => lists))
    return (connection.found ?? this.#canFind(connection)).flatMap((found) =>
      [...connection.app.policy ? lists : [undefined]].map((list) => ({ found, answer: answerOf(found, connection, list, forwarded) })))
  }

  /** Whether an answer can be; where `told` it is the connection's for certain, and what it tells of it is remembered. */
  judge (connection: Connection, answer: string, asked: Asked, told = true): Verdict {
    const allowed = this.allowed(connection, asked)
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
    const modules = states.flatMap(({ modules }) => modules)
    const found = new Set(modules.flatMap((module) => canFind(module, connection, awake)))
    // A claim that was stored under one list of `attach` may be read under the next, which would not have stored it.
    if (!awake && found.has('1348') && modules.some((module) => module.startsWith('both'))) found.add(nameOf(connection))
    // What one start of the module has seen the next one does not know.
    if (isSwitched) found.add('peer')
    // Of a socket that is no longer connected there is no name.
    if (connection.leaves) found.add('peer').add('gone')
    return [...found]
  }
}

/** What getpeername finds: the name of an IPv4 socket is no IPv6 address. */
const nameOf = ({ app, claim }: Connection): Found =>
  app.host === '127.0.0.1' && claim?.address.includes(':') === true ? 'peer' : 'getpeername'

function canFind (module: Module, connection: Connection, awake: boolean): Found[] {
  const { claim, peer } = connection
  if (claim === undefined || module === 'off') return ['peer']
  if (module.endsWith(' of some') && !attachedPeers.includes(peer.address)) return ['peer']
  const byName = nameOf(connection)
  switch (module) {
    case 'getpeername': return [byName]
    case 'both':
    case 'both of some': return awake ? ['1348'] : ['1348', byName]
    case '1348':
    case '1348 of some': return awake ? ['1348'] : ['1348', 'peer']
    case 'short': return awake ? ['zeros'] : ['zeros', 'peer']
  }
}

interface Base {
  readonly end: Endpoint
  readonly source: string
  readonly trust: string
  readonly reason?: string | undefined
  /** whether a forwarding header counts, if it is a hop's */
  readonly forwards?: boolean
}

function answerOf (found: Found, connection: Connection, list: ReadonlySet<string> | undefined, forwarded: Forwarded | undefined): string {
  if (found === 'gone') return 'undefined'
  const { end, source, trust, reason, forwards = false } = baseOf(found, connection, list)
  if (forwarded === undefined || !forwards || !isHop(end.address)) return text(end, source, trust, reason)
  return forwarded.client === undefined ? text(end, source, trust, forwarded.reason) : text(forwarded.client, 'forwarded', 'trusted', forwarded.reason)
}

/** As the decision table of docs/trust.md has it. */
function baseOf (found: Exclude<Found, 'gone'>, { app, peer, claim, header }: Connection, list: ReadonlySet<string> | undefined): Base {
  const claimed = found === '1348' || found === 'getpeername'
  const source = found === '1348' ? 'vtoa' : 'getpeername'
  const own = { end: peer, source: 'transport-peer' }
  if (found === 'header') {
    return header == null ? { ...own, trust: 'trusted', reason: 'proxy-local' } : { end: header, source: 'proxy-protocol', trust: 'trusted' }
  }
  if (!app.policy) {
    if (claimed) return { end: claim as Endpoint, source, trust: 'unchecked' }
    return found === 'zeros' ? { ...own, trust: 'unchecked', reason: 'implausible' } : { end: peer, source, trust: 'unchecked' }
  }
  if (list?.has(peer.address) !== true) {
    return { ...own, trust: 'untrusted', reason: found === 'peer' ? undefined : 'untrusted-peer', forwards: true }
  }
  if (claimed) return { end: claim as Endpoint, source, trust: 'trusted', forwards: true }
  return { ...own, trust: 'trusted', reason: found === 'zeros' ? 'implausible' : 'no-toa' }
}

/** How the server writes an answer. */
export function text ({ address, port }: { address: string | undefined, port: number | undefined }, source: string, trust: string, reason?: string): string {
  return `${address} ${port} ${source} ${trust} ${reason}`
}

export const isNone = (answer: string): boolean => answer.startsWith('undefined undefined none ')

const addressOf = (answer: string): string => answer.slice(0, answer.indexOf(' '))
