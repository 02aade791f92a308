import type { ToaFormat } from '../../types'
import { TCPOPT_EOL, TCPOPT_NOP } from '../kernel/constants'
import { createEndpoint, decodeAddress, type Endpoint, sameEndpoint, uint16, word } from '../kernel/sockaddr'

const OPTIONS_MAX = 40
// Other options under the experimental kinds 253 and 254 (RFC 6994): TCP Fast Open and SMC; <net/tcp.h>.
const EXPERIMENTAL = 253
const TCPOPT_FASTOPEN_MAGIC = 0xf989
const TCPOPT_SMC_MAGIC = 0xe2d4c3d9
const TCPOLEN_SMC = 6

/**
 * Finds the balancer's TOA among the TCP options in `bytes` from `at` to `end`. `payload`: the SYN carried data.
 * Returns `undefined` with the claim in `into`, or the reason why there is none:
 * - `'no-option'`: no option has one of the formats;
 * - `'out-of-place'`: one has, but not where the balancer writes it: a client wrote it;
 * - `'no-room'`: the options are so long that a client may have left the balancer no room;
 * - `'syn-payload'`: balancers do not stamp a SYN with data;
 * - `'ambiguous'`: two options differ.
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
    // Like the kernel, stop at the first option that is cut off.
    const length = i + 1 < end ? bytes[i + 1] as number : 0
    if (length < 2 || i + length > end) break
    const format = formats.find((format) => format.kind === kind && format.length === length)
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
  // An ordinary SYN never has that much room for an option of 20 bytes: this risk remains, see docs/trust.md.
  if (found.length < 20 && end - at > OPTIONS_MAX - found.length) return 'no-room'
  return undefined
}

const other = createEndpoint()

function decodeToa (bytes: Uint8Array, at: number, format: ToaFormat, into: Endpoint): void {
  into.port = uint16(bytes, at + 2)
  decodeAddress(bytes, at + 4, format.family === 'IPv6', into)
}

/**
 * Whether the option at `at` belongs to another user of TOA's kinds: Fast Open's of any length, SMC's of its own
 * length.
 */
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
