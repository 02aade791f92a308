import { once } from 'node:events'
import net, { isIPv6 } from 'node:net'
import { encodeProxyHeader } from 'fastify-real-ip'
import { canonicalAddress } from '../../lib/address/address'
import type { StampingClient } from '../lab/lab'
import { end, halfOfTls, reset, speak, type Speaker } from '../lab/speak'
import { apps, type App, headerPeers, type Round } from './apps'
import { type Connection, type Expectations, isNone } from './expect'
import { createRandom, type Random } from './random'

const STAMPS = {
  IPv4: { address: '20.0.0.0', numbered: true },
  IPv6: { address: '2001:db8:50::', numbered: true },
  none: null
} as const

const fates = ['one request', 'kept alive', 'idle at first', 'reset in connect', 'reset in TLS', 'reset in request'] as const
type Fate = typeof fates[number]

// Of a TLS record that has 512 bytes, the first.
const HALF_A_HELLO = Buffer.from('1603010200010001fc0303', 'hex')
const CONCURRENCY = 64
const KEPT_MAX = 120
const SAMPLES_MAX = 10
// Nothing waits for anything longer.
const STUCK_AFTER = 60_000

interface Open {
  readonly connection: Connection
  readonly speaker: Speaker<string>
}

interface Kept {
  readonly connection: Connection
  readonly round: number
  readonly since: number
  /** undefined: it was reset before there was one */
  answer: string | undefined
}

export interface Counts {
  connections: number
  protocols: Record<string, number>
  fates: Record<Fate, number>
  claims: Record<keyof typeof STAMPS, number>
  /** PROXY headers, by version and by how they were sent */
  headers: Record<'v1' | 'v2' | 'in pieces', number>
  answers: {
    /** of requests, when they were made */
    requests: number
    /** of requests, later */
    lateRequests: number
    /** of accepted sockets, later */
    lateSockets: number
    /** of these late ones, whose descriptor had another connection since */
    reused: number
    /** sockets whose client had gone before they were accepted */
    gone: number
    /** connections that never came to be accepted, or came as one of those */
    untold: number
    /** those that could be one thing alone, or one of two because of a switch meanwhile */
    exact: number
    window: number
  }
  wrong: number
  errors: number
  /** of connections made when the first was noticed */
  firstWrong: number | undefined
  samples: unknown[]
}

const zeros = <Name extends string>(names: readonly Name[]) => Object.fromEntries(names.map((name) => [name, 0])) as Record<Name, number>

/** Makes the connections and checks every answer. */
export class Load {
  readonly counts: Counts = {
    connections: 0,
    protocols: zeros(apps.map(({ protocol }) => protocol)),
    fates: zeros(fates),
    claims: zeros(['IPv4', 'IPv6', 'none']),
    headers: zeros(['v1', 'v2', 'in pieces']),
    answers: { requests: 0, lateRequests: 0, lateSockets: 0, reused: 0, gone: 0, untold: 0, exact: 0, window: 0 },
    wrong: 0,
    errors: 0,
    firstWrong: undefined,
    samples: []
  }

  readonly #seed: number
  readonly #client: StampingClient
  readonly #expectations: Expectations
  readonly #ports: readonly number[]
  readonly #sources: readonly string[]
  readonly #open: Open[] = []
  readonly #kept = new Map<number, Kept>()
  /** by both ends that the server may name, the connections of which it has not told yet */
  readonly #unseen = new Map<string, Connection[]>()
  #round = 0
  #ids = 0

  constructor (seed: number, client: StampingClient, expectations: Expectations, ports: readonly number[], sources: readonly string[]) {
    this.#seed = seed
    this.#client = client
    this.#expectations = expectations
    this.#ports = ports
    this.#sources = sources
  }

  /** So many more connections; `each` is called before each of them. */
  async run (count: number, each: () => void): Promise<void> {
    const until = this.counts.connections + count
    const worker = async () => {
      while (this.counts.connections < until) {
        each()
        const nth = this.counts.connections++
        try {
          await this.#connect(createRandom(this.#seed, nth))
        } catch (error) {
          this.#fail('errors', String((error as Error).stack))
        }
      }
    }
    await watched(Promise.all(Array.from({ length: CONCURRENCY }, worker)), () => this.counts.connections)
  }

  /** Ends the connections that are open. */
  async drop (): Promise<void> {
    await watched(Promise.all(this.#open.splice(0).map(({ speaker }) => end(speaker))), () => 0)
  }

  async #connect (random: Random): Promise<void> {
    const app = random.pick(random.chance(0.55) ? apps.slice(0, 3) : apps.slice(3))
    const host = app.host === '::' && random.chance(0.2) ? '::1' : '127.0.0.1'
    const source = random.pick(this.#sources.filter((source) => isIPv6(source) === isIPv6(host)))
    const fate = this.#fateOf(app, random)
    const stamped = random.chance(0.6) ? 'IPv4' : random.chance(0.75) ? 'IPv6' : 'none'

    const expectations = this.#expectations
    const begun = expectations.now
    const awake = expectations.isAwake(app)
    this.#client.set(STAMPS[stamped])
    const raw = net.connect({ host, port: this.#ports[apps.indexOf(app)] as number, localAddress: source })
    raw.on('error', () => {})
    // Node.js calls connect(2) by then; other connections may set their own stamp before it does.
    await new Promise<void>((resolve) => process.nextTick(resolve))
    const claim = this.#client.claimOf((raw as any)._handle.fd)
    const { port } = raw.address() as net.AddressInfo
    const header = app.proxy && headerPeers.includes(source) ? createHeader(this.counts.connections, random) : undefined
    const connection: Connection = {
      app, peer: { address: source, port }, claim, ...header && { header: header.client }, begun, awake, leaves: fate.startsWith('reset'), round: this.#round
    }
    this.#expect(connection)
    this.counts.protocols[app.protocol]!++
    this.counts.fates[fate]++
    this.counts.claims[claim === undefined ? 'none' : isIPv6(claim.address) ? 'IPv6' : 'IPv4']++

    if (fate === 'reset in connect' && random.chance(0.3)) {
      const closed = once(raw, 'close')
      raw.destroy()
      await closed
      return
    }
    await once(raw, 'connect')
    if (header !== undefined) {
      this.counts.headers[header.version === 1 ? 'v1' : 'v2']++
      if (await this.#writeHeader(raw, header.bytes, random)) this.counts.headers['in pieces']++
    }
    switch (fate) {
      case 'reset in connect':
        return await reset(raw)
      case 'reset in TLS':
        if (random.chance(0.5)) await halfOfTls(raw, app.protocol)
        else raw.write(HALF_A_HELLO)
        return await reset(raw)
      case 'reset in request': {
        const speaker = await speak<string>(raw, app.protocol)
        const id = ++this.#ids
        this.#kept.set(id, { connection, round: this.#round, since: expectations.now, answer: undefined })
        await speaker.send(`/hang/${id}`)
        return await reset(raw)
      }
      case 'one request': {
        const open = { connection, speaker: await speak<string>(raw, app.protocol) }
        await this.#ask(open, random)
        return await end(open.speaker)
      }
      case 'kept alive':
      case 'idle at first': {
        const open = { connection, speaker: await speak<string>(raw, app.protocol) }
        if (fate === 'kept alive') await this.#askTimes(open, random)
        this.#open.push(open)
        if (this.#open.length > KEPT_MAX) await this.#resume(random)
      }
    }
  }

  /** At once or in pieces; whether it was in pieces. */
  async #writeHeader (raw: net.Socket, bytes: Buffer, random: Random): Promise<boolean> {
    const pieces = random.pick([1, 1, 2, 8])
    const size = Math.ceil(bytes.length / pieces)
    for (let at = 0; at < bytes.length; at += size) {
      if (at > 0) await new Promise((resolve) => setImmediate(resolve))
      raw.write(bytes.subarray(at, at + size))
    }
    return pieces > 1
  }

  #fateOf (app: App, random: Random): Fate {
    if (random.chance(0.6)) return 'one request'
    if (random.chance(0.55)) return 'kept alive'
    if (random.chance(0.25)) return 'idle at first'
    const fate = random.pick(['reset in connect', 'reset in TLS', 'reset in request'] as const)
    return fate === 'reset in TLS' && (app.protocol === 'http' || app.protocol === 'h2c') ? 'reset in request' : fate
  }

  /** Asks on a connection that was kept, and then it ends or is reset. */
  async #resume (random: Random): Promise<void> {
    const [open] = this.#open.splice(random.below(this.#open.length), 1) as [Open]
    await this.#askTimes(open, random)
    if (random.chance(0.2)) await reset(open.speaker.raw)
    else await end(open.speaker)
  }

  /** HTTP/2 at once, HTTP/1 one after the other. */
  async #askTimes (open: Open, random: Random): Promise<void> {
    const times = 1 + random.below(3)
    if (open.connection.app.protocol.startsWith('h2')) {
      await Promise.all(Array.from({ length: times }, () => this.#ask(open, random)))
    } else {
      for (let i = 0; i < times; i++) await this.#ask(open, random)
    }
  }

  async #ask ({ connection, speaker }: Open, random: Random): Promise<void> {
    const since = this.#expectations.now
    let path = '/whoami'
    let kept: Kept | undefined
    if (random.chance(0.2)) {
      const id = ++this.#ids
      kept = { connection, round: this.#round, since, answer: undefined }
      this.#kept.set(id, kept)
      path = `/keep/${id}`
    }
    const answer = await speaker.ask(path)
    connection.answered = true
    if (kept !== undefined) kept.answer = answer
    this.counts.answers.requests++
    this.#check(connection, answer, since)
  }

  #check (connection: Connection, answer: string, since: number): void {
    const verdict = this.#expectations.judge(connection, answer, since)
    if (verdict !== 'wrong') this.counts.answers[verdict]++
    else this.#fail('wrong', { answer, connection, allowed: this.#expectations.allowed(connection, since), since, now: this.#expectations.now })
  }

  #fail (what: 'wrong' | 'errors', sample: unknown): void {
    const { counts } = this
    counts[what]++
    if (what === 'wrong') counts.firstWrong ??= counts.connections
    if (counts.samples.length < SAMPLES_MAX) counts.samples.push(sample)
  }

  /** Checks what the server told of a round: each socket against the connection that it must be of, one to one. */
  checkRound ({ sockets, requests, reused }: Round): void {
    const { answers } = this.counts
    answers.reused += reused
    for (const [index, told] of sockets.entries()) {
      for (const answer of told) this.#checkSocket(apps[index]!, answer)
    }
    for (const { id, answers: [ofRequest, ...ofOthers] } of requests) {
      const { connection, since, answer } = this.#kept.get(id)!
      this.#kept.delete(id)
      answers.lateRequests++
      // A request keeps the answer that it began with.
      if (answer === undefined) this.#check(connection, ofRequest, since)
      else if (answer === ofRequest) answers.exact++
      else this.#fail('wrong', { answer: ofRequest, expected: answer, connection })
      for (const other of ofOthers) this.#check(connection, other, this.#expectations.now)
    }
    this.#forget()
  }

  #checkSocket (app: App, answer: string): void {
    const { answers } = this.counts
    answers.lateSockets++
    if (isNone(answer)) {
      answers.gone++
      return
    }
    // More than one where ports were given out again in the same round.
    const now = this.#expectations.now
    const candidates = this.#unseen.get(keyOf(app, answer)) ?? []
    const fitting = candidates.filter((connection) => this.#expectations.judge(connection, answer, now, false) !== 'wrong')
    // One that left may never have come to be accepted.
    const connection = fitting.find(({ answered }) => answered) ?? fitting.find(({ leaves }) => !leaves) ?? fitting[0]
    if (connection === undefined) return this.#fail('wrong', { answer, socketOf: app, candidates })
    answers[this.#expectations.judge(connection, answer, now, fitting.length === 1) as 'exact' | 'window']++
    this.#see(connection)
  }

  /** Where the server's answers will look for the connection. */
  #expect (connection: Connection): void {
    for (const key of keysOf(connection)) {
      const others = this.#unseen.get(key)
      if (others === undefined) this.#unseen.set(key, [connection])
      else others.push(connection)
    }
  }

  #see (connection: Connection): void {
    for (const key of keysOf(connection)) {
      const left = this.#unseen.get(key)!.filter((other) => other !== connection)
      if (left.length === 0) this.#unseen.delete(key)
      else this.#unseen.set(key, left)
    }
  }

  /** What the server had two rounds to tell of, and did not. */
  #forget (): void {
    this.#round++
    for (const [id, { round, answer, connection }] of this.#kept) {
      if (this.#round - round < 3) continue
      this.#kept.delete(id)
      if (answer !== undefined) this.#fail('errors', { neverTold: answer, connection })
    }
    for (const connection of new Set([...this.#unseen.values()].flat())) {
      if (this.#round - connection.round < 3) continue
      this.#see(connection)
      this.counts.answers.untold++
      if (connection.answered) this.#fail('errors', { neverHandedOver: connection })
    }
  }
}

const keyOf = (app: App, answer: string) => `${apps.indexOf(app)} ${answer.slice(0, answer.indexOf(' ', answer.indexOf(' ') + 1))}`
const keysOf = ({ app, peer, claim, header }: Connection) =>
  [peer, claim, header].flatMap((end) => end == null ? [] : [`${apps.indexOf(app)} ${end.address} ${end.port}`])

/** Of another client each; now and then of none, or with fields that nobody asks for. */
function createHeader (nth: number, random: Random) {
  const version = random.pick([1, 2] as const)
  const isV6 = random.chance(0.3)
  const [high, low] = [nth >> 16 & 255, nth & 0xffff]
  const client = random.chance(0.1)
    ? null
    : { address: isV6 ? `2001:db8:51::${high.toString(16)}:${low.toString(16)}` : `21.${high}.${low >> 8}.${low & 255}`, port: 1 + random.below(65535) }
  const destination = { address: isV6 ? '2001:db8::1' : '198.51.100.1', port: 443 }
  return {
    version,
    client: client && { ...client, address: canonicalAddress(client.address) as string },
    bytes: encodeProxyHeader({
      version,
      ...client && { source: client, destination },
      ...version === 2 && { checksum: random.chance(0.5), tlvs: random.chance(0.3) ? [{ type: 2, value: Buffer.alloc(random.below(300), 'a') }] : [] }
    })
  }
}

/** Rejects where nothing gets done any more. */
async function watched (work: Promise<unknown>, done: () => number): Promise<void> {
  let before = -1
  let timer: NodeJS.Timeout | undefined
  const stuck = new Promise<never>((_resolve, reject) => {
    timer = setInterval(() => {
      if (done() === before) reject(new Error(`nothing was done for ${STUCK_AFTER / 1000} seconds`))
      before = done()
    }, STUCK_AFTER)
  })
  try {
    await Promise.race([work, stuck])
  } finally {
    clearInterval(timer)
  }
}
