import { isIPv6 } from 'node:net'
import type { RealAddress } from '../../types'
import { explainUnread, isAnyLoaded, type Loaded, type SocketFamily } from './modules'
import { paint, type Style, type Terminal, wrap } from './paint'
import type { SegmentOption } from './segment-options'
import type { Asked, Seen } from './sighting'

const meanings: Readonly<Record<string, string>> = {
  ENOPROTOOPT: 'no module answers: not loaded, or too old',
  ESRCH: 'no TOA on the segment that completed the handshake, or attach does not trust its sender',
  EPERM: 'no TOA on the segment that completed the handshake, or attach does not trust its sender',
  EINVAL: 'no TOA on the segment that completed the handshake',
  EFAULT: 'TOA, but not of NAT64: getpeername returns it',
  'not-asked': "sources: 'auto' omits it, for the reason printed at the start",
  'no-saved-syn': 'the kernel did not save the SYN',
  'no-option': 'no option of the SYN has the format of --toa',
  'out-of-place': 'the option is not where the balancer writes it: a client wrote it',
  'no-room': 'a client could have left the balancer no room',
  'syn-payload': 'balancers write no TOA on a SYN with data',
  ambiguous: 'two claims differ',
  'no-toa': 'a trusted peer that claims no client',
  'untrusted-peer': 'not in --trusted-peers: its claim is not believed',
  'unverified-peer': 'the sender of the packets is unknown',
  implausible: 'no client can have the address',
  'proxy-local': "it names no client, as in health checks: the answer is the sender's own address",
  'proxy-missing': 'not enabled in the balancer, or another program on its host connected',
  'proxy-malformed': 'it violates the specification',
  'proxy-too-long': 'no balancer writes such a long header',
  'proxy-checksum': 'changed on the way, or computed wrongly',
  'proxy-cut-short': 'the connection ended first',
  'proxy-timeout': 'the rest did not arrive in time',
  'proxy-evicted': 'too many connections waited for their headers, and this was the oldest'
}

const explain = (reason: string): string => meanings[reason] === undefined ? reason : `${reason}: ${meanings[reason]}`

const isToa = ({ name }: SegmentOption): boolean => name === 'toa'

/** What `noteOn()` needs besides the connection. */
export interface Circumstances {
  /** The errno if there is no packet socket. */
  readonly captureRefused: string | undefined
  /** Whether the format of TOA is still unknown. */
  readonly asks: boolean
  readonly loaded: Loaded
  readonly listener: SocketFamily
}

type Facts = Pick<Seen, 'transportPeer' | 'syn' | 'ack' | 'sources'>

/** Conclusions from the facts. */
export function noteOn (facts: Facts, { captureRefused, asks, loaded, listener }: Circumstances): string[] {
  const { transportPeer, syn, ack, sources } = facts
  const notes: string[] = []
  const claims = claimsOf(facts)
  const module = claims.length > 0 || sources.some((asked) =>
    'reason' in asked && (asked.source === 'vtoa' || asked.source === 'nat64') && asked.reason !== 'ENOPROTOOPT')
  if (syn === null) {
    notes.push('The kernel did not save the SYN, as in a SYN flood (SYN cookies): its options are not visible.')
  }
  if (!module && ack === null) {
    notes.push('TOA after the SYN, on the ACK or on data, is not visible here: ' +
      (isAnyLoaded(loaded) ? 'the kernel module has nothing for this connection' : 'no kernel module answers') +
      (captureRefused === undefined ? '.' : `, and capturing it needs root (${captureRefused}).`))
  }
  const [onSyn, ...more] = syn?.options.filter(isToa) ?? []
  const onAck = ack?.find(isToa)
  if (syn !== null && ack !== null && onSyn === undefined && onAck === undefined) {
    notes.push('Neither the SYN nor the ACK carries TOA.')
  }
  // A balancer that stamps the SYN also stamps the ACK.
  const stamped = ack === null ? onSyn : onAck
  const unread = stamped !== undefined && claims.length === 0 ? explainUnread(stamped, loaded, listener) : undefined
  if (unread !== undefined) {
    notes.push(unread)
  } else if (!module && onSyn === undefined && onAck !== undefined) {
    notes.push('Only the ACK carries TOA, not the SYN: to read it, load a kernel module, vtoa or the toa.ko of the ' +
      'balancer, or run fastify-real-ip attach (Linux 5.10 or later).')
  }
  if (claims.length === 0 && hasVirtualServerFirst(ack ?? [])) {
    notes.push('Kind 250, the virtual server, comes before the TOA: vtoa then finds no client.')
  }
  if (onSyn === undefined) return notes
  if (onAck !== undefined && !sameClient(onSyn, onAck)) {
    notes.push("The SYN and the ACK carry different TOAs: a client wrote the SYN's, which must not be believed.")
  } else if (more.some((other) => !sameClient(onSyn, other))) {
    notes.push('The SYN carries TOAs that differ: a client wrote all but one, and which one is unknown.')
  } else if (claims.some((claim) => !sameClient(onSyn, claim))) {
    notes.push("The SYN's TOA differs from what the kernel module returned: with --toa such a connection is reset as " +
      'ambiguous.')
  } else if (asks && onSyn.refused !== undefined) {
    notes.push(`The SYN's TOA must not be believed: ${explain(onSyn.refused)}.`)
  } else if (asks && onSyn.format !== undefined && transportPeer !== null) {
    notes.push(`If ${transportPeer.address} is a balancer that writes this TOA, and strips clients' TOA, read it ` +
      `with --trusted-peers ${transportPeer.address} --toa ${onSyn.format}`)
  }
  return notes
}

/** What the kernel modules claim, other than the transport peer. */
function claimsOf ({ transportPeer, sources }: Facts): ReadonlyArray<Client> {
  return sources.flatMap((asked) =>
    'reason' in asked || asked.source === 'saved-syn' || asked.address === transportPeer?.address ? [] : [asked])
}

type Client = Pick<SegmentOption, 'address' | 'port'>

const sameClient = (a: Client, b: Client): boolean => a.address === b.address && a.port === b.port

function hasVirtualServerFirst (options: ReadonlyArray<SegmentOption>): boolean {
  const at = options.findIndex(({ name }) => name === 'virtual-server')
  return at >= 0 && at < options.findIndex(isToa)
}

/** `address:port`. */
export function endpoint (address: string, port: number | undefined): string {
  if (port === undefined) return address
  return isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`
}

/** Formats one connection as text, wrapped to `columns` where possible. */
export function drawSeen (seen: Seen, terminal: Terminal): string {
  const { connection, time, transportPeer, syn, ack, sources, header = [], decision, notes } = seen
  const { colours, columns = Infinity } = terminal
  const rows: Array<[name: string, text: string]> = [
    ['transport peer', drawPeer(transportPeer)],
    ['SYN', syn === null ? 'not visible' : `${drawOptions(syn.options, terminal)}${syn.payload ? ', with data' : ''}`],
    ['ACK', ack === null ? 'not visible' : drawOptions(ack, terminal)],
    ...sources.map((asked): [string, string] => [asked.source, drawAsked(asked, transportPeer)]),
    ...header.map((line, i): [string, string] => [i === 0 ? 'PROXY header' : '', line]),
    ['the plugin says', drawDecision(decision, terminal)]
  ]
  const margin = Math.max(...rows.map(([name]) => name.length)) + 4
  const indent = (text: string, by: number) => wrap(text, columns - by).join(`\n${' '.repeat(by)}`)
  return [
    paint('bold', `Connection ${connection}`, colours) + paint('dim', ` at ${time}`, colours),
    ...rows.map(([name, text]) => `  ${name.padEnd(margin - 4)}  ${indent(text, margin)}`),
    ...notes.map((note) => `  ${paint('yellow', indent(note, 2), colours)}`),
    ''
  ].join('\n')
}

function drawPeer (peer: Seen['transportPeer']): string {
  if (peer === null) return 'unknown'
  return `${endpoint(peer.address, peer.port)} (from ${peer.by === 'saved-syn' ? 'the saved SYN' : 'sock_diag'})`
}

function drawOptions (options: ReadonlyArray<SegmentOption>, { colours }: Terminal): string {
  if (options.length === 0) return 'no options'
  return options.map(({ kind, length, name, value, address, port, writtenBy, virtualServer, wouldBe }) => {
    if (address !== undefined) {
      return `${paint('bold', `TOA ${kind}/${length} ${endpoint(address, port)}`, colours)} (${writtenBy}` +
        (virtualServer === undefined ? ')' : ` ${endpoint(virtualServer.address, virtualServer.port)})`)
    }
    if (name === 'virtual-server') return `${kind}/${length} ${value} (Alibaba, the virtual server, not a client)`
    const text = value === undefined ? name : `${name} ${value}`
    return wouldBe === undefined ? text : `${text} (as TOA it would be ${endpoint(wouldBe.address, wouldBe.port)})`
  }).join(', ')
}

function drawAsked (asked: Asked, peer: Seen['transportPeer']): string {
  if ('reason' in asked) return explain(asked.reason)
  const text = endpoint(asked.address, asked.port)
  return asked.address === peer?.address && asked.port === peer.port ? `${text}, the transport peer: no claim` : text
}

const trustStyles: Record<RealAddress['trust'], Style> = {
  trusted: 'green', untrusted: 'red', unverified: 'yellow', unchecked: 'yellow'
}

function drawDecision (
  { address, port, source, trust, reason, reset }: Seen['decision'], { colours }: Terminal
): string {
  const what = address === undefined ? 'no address' : `${paint('bold', endpoint(address, port), colours)} by ${source}`
  return `${what}, ${paint(trustStyles[trust], trust, colours)}` +
    (reason === undefined ? '' : ` (${explain(reason)})`) +
    (reset ? paint('red', '; the connection is reset', colours) : '')
}
