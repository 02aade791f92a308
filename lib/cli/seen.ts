import { isIPv6 } from 'node:net'
import type { Attempt, KernelSource, RealAddress } from '../../types'
import { paint, type Style } from './paint'
import type { SegmentOption } from './segment-options'

/** What is seen of one connection: the JSON of `watch --json`. */
export interface Seen {
  readonly connection: number
  readonly time: string
  /** Who sent the packets, and what told it; null where it is not known. */
  readonly transportPeer: { readonly address: string, readonly port: number | undefined, readonly by: 'saved-syn' | 'sock_diag' } | null
  /** null: the kernel has not kept it. */
  readonly syn: { readonly options: ReadonlyArray<SegmentOption>, readonly payload: boolean } | null
  /** The options of the segment that completed the handshake; null where it cannot be seen. */
  readonly ack: ReadonlyArray<SegmentOption> | null
  readonly sources: ReadonlyArray<Asked>
  readonly decision: Pick<RealAddress, 'address' | 'port' | 'family' | 'source' | 'trust' | 'reason'> & {
    /** Whether the plugin resets such a connection. */
    readonly reset: boolean
  }
  /** What cannot be seen, and what follows from it all. */
  readonly notes: ReadonlyArray<string>
}

/** What a source answers: an address, or a reason. */
export type Asked = { readonly source: KernelSource, readonly address: string, readonly port: number } | Attempt

const meanings: Readonly<Record<string, string>> = {
  ENOPROTOOPT: 'no module answers: not loaded, or too old',
  ESRCH: 'no TOA on the segment that completed the handshake',
  EINVAL: 'no TOA on the segment that completed the handshake',
  EFAULT: 'TOA, but not of NAT64: getpeername has it',
  'not-asked': "sources: 'auto' leaves it out, for the reason said at the start",
  'no-saved-syn': 'the kernel has not kept the SYN',
  'no-option': 'no option of the SYN has the format of --toa',
  'out-of-place': 'the option is not where the balancer writes it: a client wrote it',
  'no-room': 'a client could have left the balancer no room',
  'syn-payload': 'balancers do not stamp a SYN with data',
  ambiguous: 'two claims differ',
  'no-toa': 'a trusted peer that claims no client',
  'untrusted-peer': 'not in --trusted-peers: its claim is not believed',
  'unverified-peer': 'who sent the packets is not known',
  implausible: 'no client can have the address'
}

const explain = (reason: string): string => meanings[reason] === undefined ? reason : `${reason}: ${meanings[reason]}`

const isToa = ({ name }: SegmentOption): boolean => name === 'toa'

/**
 * What there is to say beside the facts. `captureRefused` is the errno where there is no packet socket; `asks` whether the
 * format of TOA is still to be found out.
 */
export function noteOn (
  { transportPeer, syn, ack, sources }: Pick<Seen, 'transportPeer' | 'syn' | 'ack' | 'sources'>, captureRefused: string | undefined, asks: boolean
): string[] {
  const notes: string[] = []
  const module = sources.some((asked) => 'reason' in asked
    ? (asked.source === 'vtoa' || asked.source === 'nat64') && asked.reason !== 'ENOPROTOOPT'
    : asked.source !== 'saved-syn' && asked.address !== transportPeer?.address)
  if (syn === null) notes.push('The kernel has not kept the SYN, as in a SYN flood (SYN cookies): its options are not visible.')
  if (!module && ack === null) {
    notes.push('TOA after the SYN, on the ACK or on data, is not visible here: no kernel module answers' +
      (captureRefused === undefined ? '.' : `, and to capture it takes root (${captureRefused}).`))
  }
  const onSyn = syn?.options.find(isToa)
  const onAck = ack?.find(isToa)
  if (syn !== null && ack !== null && onSyn === undefined && onAck === undefined) notes.push('Neither the SYN nor the ACK carries TOA.')
  if (!module && onSyn === undefined && onAck !== undefined) {
    notes.push('TOA is seen on the ACK, not on the SYN: that takes a kernel module to read, vtoa or the toa.ko of the balancer.')
  }
  if (onSyn !== undefined && onAck !== undefined && (onSyn.address !== onAck.address || onSyn.port !== onAck.port)) {
    notes.push("The SYN and the ACK carry different TOAs: the SYN's is a client's own, and must not be believed.")
  } else if (asks && onSyn?.format !== undefined && transportPeer !== null) {
    notes.push(`If ${transportPeer.address} is a balancer that writes this TOA, and strips what clients write, read it with ` +
      `--trusted-peers ${transportPeer.address} --toa ${onSyn.format}`)
  }
  return notes
}

/** `address:port`. */
export function endpoint (address: string, port: number | undefined): string {
  if (port === undefined) return address
  return isIPv6(address) ? `[${address}]:${port}` : `${address}:${port}`
}

/** One connection as text. */
export function drawSeen (seen: Seen, colours: boolean): string {
  const { connection, time, transportPeer, syn, ack, sources, decision, notes } = seen
  const rows: Array<[name: string, text: string]> = [
    ['transport peer', transportPeer === null
      ? 'not known'
      : `${endpoint(transportPeer.address, transportPeer.port)} (told by ${transportPeer.by === 'saved-syn' ? 'the saved SYN' : 'sock_diag'})`],
    ['SYN', syn === null ? 'not visible' : `${drawOptions(syn.options, colours)}${syn.payload ? ', with data' : ''}`],
    ['ACK', ack === null ? 'not visible' : drawOptions(ack, colours)],
    ...sources.map((asked): [string, string] => [asked.source, drawAsked(asked, transportPeer)]),
    ['the plugin says', drawDecision(decision, colours)]
  ]
  const width = Math.max(...rows.map(([name]) => name.length))
  return [
    paint('bold', `Connection ${connection}`, colours) + paint('dim', ` at ${time}`, colours),
    ...rows.map(([name, text]) => `  ${name.padEnd(width)}  ${text}`),
    ...notes.map((note) => `  ${paint('yellow', note, colours)}`),
    ''
  ].join('\n')
}

function drawOptions (options: ReadonlyArray<SegmentOption>, colours: boolean): string {
  if (options.length === 0) return 'no options'
  return options.map(({ kind, length, name, value, address, port, writtenBy }) => {
    if (address !== undefined) return `${paint('bold', `TOA ${kind}/${length} ${endpoint(address, port)}`, colours)} (${writtenBy})`
    return value === undefined ? name : `${name} ${value}`
  }).join(', ')
}

function drawAsked (asked: Asked, peer: Seen['transportPeer']): string {
  if ('reason' in asked) return explain(asked.reason)
  const text = endpoint(asked.address, asked.port)
  return asked.address === peer?.address && asked.port === peer.port ? `${text}, the transport peer: no claim` : text
}

const trustStyles: Record<RealAddress['trust'], Style> = { trusted: 'green', untrusted: 'red', unverified: 'yellow', unchecked: 'yellow' }

function drawDecision ({ address, port, source, trust, reason, reset }: Seen['decision'], colours: boolean): string {
  const what = address === undefined ? 'no address' : `${paint('bold', endpoint(address, port), colours)} by ${source}`
  return `${what}, ${paint(trustStyles[trust], trust, colours)}` +
    (reason === undefined ? '' : ` (${explain(reason)})`) +
    (reset ? paint('red', '; the connection is reset', colours) : '')
}
