import { once } from 'node:events'
import net, { isIPv6 } from 'node:net'
import { encodeProxyHeader } from 'fastify-real-ip'
import { canonicalAddress } from '../../lib/address/address'
import type { StampingClient } from '../lab/lab'
import { end, halfOfTls, reset, speak, type Speaker } from '../lab/speak'
import { apps, type App, headerPeers, type Place, type Round, serverOf, servers } from './apps'
import { type Asked, type Connection, type Expectations, type Forwarded, isNone } from './expect'
import { createRandom, type Random } from './random'
import { Untold } from './untold'

const STAMPS = {
  IPv4: { address: '20.0.0.0', numbered: true },
  IPv6: { address: '2001:db8:50::', numbered: true },
  none: null
} as const

const forwardings = ['none', 'a client', 'malformed', 'proxies alone'] as const

const fates = ['one request', 'kept alive', 'idle at first', 'reset in connect', 'reset in TLS', 'reset in request'] as const
type Fate = typeof fates[number]

// HTTP costs the least.
const plain = apps.filter(({ protocol }) => protocol === 'http')
const others = apps.filter(({ protocol }) => protocol !== 'http')

// Of a TLS record that has 512 bytes, the first.
const HALF_A_HELLO = Buffer.from('1603010200010001fc0303', 'hex')
const CONCURRENCY = 128
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
  readonly asked: Asked
  /** undefined: it was reset before there was one */
  answer: string | undefined
}

export interface Counts {
  connections: number
  protocols: Record<string, number>
  servers: Record<typeof servers[number], number>
  fates: Record<Fate, number>
  claims: Record<keyof typeof STAMPS, number>
  /** PROXY headers, by version and by how they were sent */
  headers: Record<'v1' | 'v2' | 'in pieces', number>
  /** requests to servers where X-Forwarded-For counts, by what it said */
  forwarded: Record<typeof forwardings[number], number>
  answers: {
    /** of requests, when they were made */
    requests: number
    /** of these, whose address is from X-Forwarded-For */
    forwarded: number
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
    servers: zeros(servers),
    fates: zeros(fates),
    claims: zeros(['IPv4', 'IPv6', 'none']),
    headers: zeros(['v1', 'v2', 'in pieces']),
    forwarded: zeros(forwardings),
    answers: { requests: 0, forwarded: 0, lateRequests: 0, lateSockets: 0, reused: 0, gone: 0, untold: 0, exact: 0, window: 0 },
    wrong: 0,
    errors: 0,
    firstWrong: undefined,
    samples: []
  }

  readonly #seed: number
  /** of connections that were made before, in other stretches */
  readonly #before: number
  readonly #client: StampingClient
  readonly #expectations: Readonly<Record<Place, Expectations>>
  readonly #ports: ReadonlyMap<number, number>
  readonly #sources: readonly string[]
  readonly #open: Open[] = []
  readonly #kept = new Map<number, Kept>()
  readonly #untold = new Untold()
  #round = 0
  #ids = 0

  constructor (
    seed: number, before: number, client: StampingClient, expectations: Readonly<Record<Place, Expectations>>,
    ports: ReadonlyMap<number, number>, sources: readonly string[]
  ) {
    this.#seed = seed
    this.#before = before
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
        const nth = this.#before + this.counts.connections++
        try {
          await this.#connect(nth, createRandom(this.#seed, nth))
        } catch (error) {
          this.failed(error)
        }
      }
    }
    await watched(Promise.all(Array.from({ length: CONCURRENCY }, worker)), () => this.counts.connections)
  }

  failed (error: unknown): void {
    this.#fail('errors', String((error as Error).stack))
  }

  /** Ends the connections that are open. */
  async drop (): Promise<void> {
    await watched(Promise.all(this.#open.splice(0).map(({ speaker }) => end(speaker))), () => 0)
  }

  async #connect (nth: number, random: Random): Promise<void> {
    const app = random.pick(random.chance(0.75) ? plain : others)
    const host = app.host === '::' && random.chance(0.2) ? '::1' : '127.0.0.1'
    const source = random.pick(this.#sources.filter((source) => isIPv6(source) === isIPv6(host)))
    const fate = this.#fateOf(app, random)
    const stamped = random.chance(0.6) ? 'IPv4' : random.chance(0.75) ? 'IPv6' : 'none'

    const expectations = this.#expectations[app.place]
    const begun = expectations.now
    const awake = expectations.isAwake(app)
    this.#client.set(STAMPS[stamped])
    const raw = net.connect({ host, port: this.#ports.get(apps.indexOf(app)) as number, localAddress: source })
    raw.on('error', () => {})
    // Node.js calls connect(2) by then; other connections may set their own stamp before it does.
    await new Promise<void>((resolve) => process.nextTick(resolve))
    const claim = this.#client.claimOf((raw as any)._handle.fd)
    const { port } = raw.address() as net.AddressInfo
    const header = app.proxy && headerPeers.includes(source) ? createHeader(nth, random) : undefined
    const connection: Connection = {
      app, peer: { address: source, port }, claim, ...header && { header: header.client }, begun, awake, leaves: fate.startsWith('reset'), round: this.#round
    }
    this.#untold.add(connection)
    this.counts.protocols[app.protocol]!++
    this.counts.servers[serverOf(app)]++
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
        const asked = this.#question(connection, random)
        this.#kept.set(id, { connection, round: this.#round, asked, answer: undefined })
        await speaker.send(`/hang/${id}`, headersOf(asked))
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
    const asked = this.#question(connection, random)
    let path = '/whoami'
    let kept: Kept | undefined
    if (random.chance(0.2)) {
      const id = ++this.#ids
      kept = { connection, round: this.#round, asked, answer: undefined }
      this.#kept.set(id, kept)
      path = `/keep/${id}`
    }
    const answer = await speaker.ask(path, headersOf(asked))
    connection.answered = true
    if (kept !== undefined) kept.answer = answer
    this.counts.answers.requests++
    if (answer.includes(' forwarded ')) this.counts.answers.forwarded++
    this.#check(connection, answer, asked)
  }

  /** One that is asked now. */
  #question ({ app }: Connection, random: Random): Asked {
    const since = this.#expectations[app.place].now
    if (!app.forwarded) return { since }
    const what = random.pick(forwardings)
    this.counts.forwarded[what]++
    return { since, forwarded: createForwarded(what, random) }
  }

  #check (connection: Connection, answer: string, asked: Asked): void {
    const expectations = this.#expectations[connection.app.place]
    const verdict = expectations.judge(connection, answer, asked)
    if (verdict !== 'wrong') this.counts.answers[verdict]++
    else this.#fail('wrong', { answer, connection, allowed: expectations.allowed(connection, asked), asked, now: expectations.now })
  }

  #fail (what: 'wrong' | 'errors', sample: unknown): void {
    const { counts } = this
    counts[what]++
    if (what === 'wrong') counts.firstWrong ??= this.#before + counts.connections
    if (counts.samples.length < SAMPLES_MAX) counts.samples.push(sample)
  }

  /** Checks what the servers told of a round: each socket against the connection that it must be of, one to one. */
  checkRound (rounds: readonly Round[]): void {
    for (const { sockets, requests, reused } of rounds) {
      this.counts.answers.reused += reused
      for (const [index, told] of sockets.entries()) {
        for (const answer of told) this.#checkSocket(apps[index]!, answer)
      }
      for (const request of requests) this.#checkRequest(request)
    }
    this.#forget()
  }

  #checkRequest ({ id, answers: [ofRequest, ofRaw, ofConnection] }: Round['requests'][number]): void {
    const { connection, asked, answer } = this.#kept.get(id)!
    const { now } = this.#expectations[connection.app.place]
    this.#kept.delete(id)
    this.counts.answers.lateRequests++
    // A request keeps the answer that it began with.
    if (answer === undefined) this.#check(connection, ofRequest, asked)
    else if (answer === ofRequest) this.counts.answers.exact++
    else this.#fail('wrong', { answer: ofRequest, expected: answer, connection })
    this.#check(connection, ofRaw, { ...asked, since: now })
    this.#check(connection, ofConnection, { since: now })
  }

  #checkSocket (app: App, answer: string): void {
    const { answers } = this.counts
    answers.lateSockets++
    if (isNone(answer)) {
      answers.gone++
      return
    }
    const expectations = this.#expectations[app.place]
    const asked = { since: expectations.now }
    const named = this.#untold.named(app, answer)
    const fitting = named.filter((connection) => expectations.judge(connection, answer, asked, false) !== 'wrong')
    if (!this.#untold.tell(fitting)) return this.#fail('wrong', { answer, socketOf: app, named })
    const [connection] = fitting as [Connection]
    answers[expectations.judge(connection, answer, asked, connection.isShared !== true) as 'exact' | 'window']++
  }

  /** What the server had two rounds to tell of, and did not. */
  #forget (): void {
    this.#round++
    for (const [id, { round, answer, connection }] of this.#kept) {
      // The request of one that was reset may be read late, while rounds without connections pass.
      if (this.#round - round < (answer === undefined ? 10 : 3)) continue
      this.#kept.delete(id)
      if (answer !== undefined) this.#fail('errors', { neverTold: answer, connection })
    }
    for (const connection of this.#untold.forget(this.#round - 2)) {
      this.counts.answers.untold++
      if (connection.answered) this.#fail('errors', { neverHandedOver: connection })
    }
  }
}

const headersOf = ({ forwarded }: Asked) => forwarded === undefined ? {} : { 'x-forwarded-for': [...forwarded.lines] }

/** What its hops wrote is the end of it; what the client wrote before that is forged. */
function createForwarded (what: typeof forwardings[number], random: Random): Forwarded {
  if (what === 'none') return { lines: [], client: undefined, reason: 'forwarded-missing' }
  const byte = () => random.below(256)
  const proxies = Array.from({ length: random.below(3) + Number(what === 'proxies alone') }, () => `20.255.${byte()}.${byte()}`)
  const address = random.chance(0.3)
    ? canonicalAddress(`2001:db8:52::${byte().toString(16)}:${(256 + byte()).toString(16)}`) as string
    : `22.${byte()}.${byte()}.${byte()}`
  const port = random.chance(0.3) ? 1 + random.below(65535) : undefined
  const client = port === undefined ? address : `${isIPv6(address) ? `[${address}]` : address}:${port}`
  const last = what === 'a client' ? [client] : what === 'malformed' ? [random.pick(['unknown', '22.1.2', '22.1.2.3.4', '::ffff:', client + 'x'])] : []
  const forged = what === 'proxies alone' ? [] : random.pick([[], ['203.0.113.66'], ['unknown', '20.0.0.1'], ['127.0.0.1', '203.0.113.66:66']])
  const entries = [...forged, ...last, ...proxies]
  const at = random.chance(0.3) ? 1 + random.below(entries.length) : entries.length
  return {
    lines: [entries.slice(0, at), entries.slice(at)].filter((line) => line.length > 0).map((line) => line.join(', ')),
    client: what === 'a client' ? { address, port } : proxies[0] === undefined ? undefined : { address: proxies[0], port: undefined },
    reason: what === 'a client' ? undefined : what === 'malformed' ? 'forwarded-malformed' : 'forwarded-missing'
  }
}

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
