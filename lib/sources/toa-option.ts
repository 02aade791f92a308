import type { ToaFormat } from '../../types'
import { createEndpoint, decodeIPv4, decodeIPv6, type Endpoint, sameEndpoint, unmap, word } from '../kernel/sockaddr'

// <net/tcp.h>
const TCPOPT_EOL = 0
const TCPOPT_NOP = 1
const OPTIONS_MAX = 40
// Kind, length, port and an IPv4 address: most options of a SYN are shorter, and are none.
const TOA_MIN = 8
// Options of others under the experimental kinds 253 and 254, RFC 6994: TCP Fast Open and SMC.
const EXPERIMENTAL = 253
const TCPOPT_FASTOPEN_MAGIC = 0xf989
const TCPOPT_SMC_MAGIC = 0xe2d4c3d9
const TCPOLEN_SMC = 6

/**
 * Finds the TOA that a balancer wrote among the TCP options in `bytes` from `at` to `end`, which had `payload` behind
 * it or not. Undefined where it did, and its claim is in `into`; else why there is none to believe:
 * - `'no-option'`: no option has one of the formats;
 * - `'out-of-place'`: one has, but not where the balancer writes, so that a client wrote it;
 * - `'no-room'`: the options are so long that a client could have left the balancer no room;
 * - `'syn-payload'`: balancers do not stamp a SYN that carries data;
 * - `'ambiguous'`: there are two that differ.
 */
export function findToa (
  bytes: Uint8Array, at: number, end: number, payload: boolean, formats: ReadonlyArray<ToaFormat>, into: Endpoint
): string | undefined {
  let found: ToaFormat | undefined
  let foundAt = 0
  for (let i = at; i < end;) {
    const kind = bytes[i] as number
    if (kind === TCPOPT_EOL) break
    if (kind === TCPOPT_NOP) {
      i++
      continue
    }
    // As the kernel does, the walk ends at the first option that cannot be whole.
    const length = i + 1 < end ? bytes[i + 1] as number : 0
    if (length < 2 || i + length > end) break
    const format = length < TOA_MIN ? undefined : formatOf(formats, kind, length)
    if (format !== undefined && !isExperiment(bytes, i)) {
      if (found === undefined) {
        decodeToa(bytes, i, format, into)
        found = format
        foundAt = i
      } else {
        decodeToa(bytes, i, format, other)
        if (!sameEndpoint(into, other)) return 'ambiguous'
        if (format.position === 'last') {
          found = format
          foundAt = i
        }
      }
    }
    i += length
  }
  if (found === undefined) return 'no-option'
  if (payload) return 'syn-payload'
  const inPlace = found.position === 'first' ? foundAt === at : isPadding(bytes, foundAt + found.length, end)
  if (!inPlace) return 'out-of-place'
  // An ordinary SYN leaves no such room for an option of 20 bytes: there the risk remains, and docs/trust.md says so.
  if (found.length < 20 && end - at > OPTIONS_MAX - found.length) return 'no-room'
  return undefined
}

const other = createEndpoint()

// For every option of every connection: an iterator, or the function that Array.find() takes, would cost more than the rest.
function formatOf (formats: ReadonlyArray<ToaFormat>, kind: number, length: number): ToaFormat | undefined {
  for (let i = 0; i < formats.length; i++) {
    const format = formats[i] as ToaFormat
    if (format.kind === kind && format.length === length) return format
  }
  return undefined
}

function decodeToa (bytes: Uint8Array, at: number, format: ToaFormat, into: Endpoint): void {
  into.port = (bytes[at + 2] as number) << 8 | (bytes[at + 3] as number)
  if (format.family === 'IPv6') {
    decodeIPv6(bytes, at + 4, into)
    unmap(into)
  } else {
    decodeIPv4(bytes, at + 4, into)
  }
}

/** Whether the option at `at` is one of those that share TOA's kinds: Fast Open's of any length, SMC's of its own. */
export function isExperiment (bytes: Uint8Array, at: number): boolean {
  if ((bytes[at] as number) < EXPERIMENTAL) return false
  const value = word(bytes, at + 2) >>> 0
  return value >>> 16 === TCPOPT_FASTOPEN_MAGIC || (bytes[at + 1] === TCPOLEN_SMC && value === TCPOPT_SMC_MAGIC)
}

function isPadding (bytes: Uint8Array, from: number, to: number): boolean {
  for (let i = from; i < to; i++) {
    if (bytes[i] !== TCPOPT_EOL && bytes[i] !== TCPOPT_NOP) return false
  }
  return true
}
