/** An IP address as four 32-bit words in host byte order, signed or unsigned. IPv4 uses only `w3`; the others are 0. */
export interface Address {
  readonly family: 'IPv4' | 'IPv6'
  readonly w0: number
  readonly w1: number
  readonly w2: number
  readonly w3: number
}

export function sameAddress (a: Address, b: Address): boolean {
  return a.w3 === b.w3 && a.family === b.family && a.w0 === b.w0 && a.w1 === b.w1 && a.w2 === b.w2
}

const octets = Array.from({ length: 256 }, (_, n) => String(n))
const dotted = octets.map((octet) => octet + '.')

/** Dotted decimal text of an IPv4 address. */
export function formatIPv4 (word: number): string {
  // In pairs: appending to a string copies it.
  return ((dotted[word >>> 24] as string) + dotted[word >>> 16 & 0xff]) +
    ((dotted[word >>> 8 & 0xff] as string) + octets[word & 0xff])
}

const hex = Array.from({ length: 256 }, (_, n) => n.toString(16))
const padded = hex.map((digits) => digits.padStart(2, '0'))
const following = hex.map((digits) => ':' + digits)

// RFC 5952 §4.2: '::' replaces the longest run of two or more zero groups, the first of equals. Indexed by the set of
// zero groups (bit 0: first group): the run's start in the upper four bits, its end in the lower ones; 8 and 9 if there
// is none.
const runs = Uint8Array.from({ length: 256 }, (_, zeros) => {
  let start = 8
  let length = 1
  let run = 0
  for (let i = 0; i < 8; i++) {
    run = (zeros >>> i & 1) === 1 ? run + 1 : 0
    if (run > length) {
      start = i - run + 1
      length = run
    }
  }
  return start << 4 | start + length
})

/** RFC 5952 text of an IPv6 address. */
export function formatIPv6 (w0: number, w1: number, w2: number, w3: number): string {
  const run = runs[zerosOf(w0) | zerosOf(w1) << 2 | zerosOf(w2) << 4 | zerosOf(w3) << 6] as number
  const start = run >>> 4
  const end = run & 15
  let text = start === 0 ? ':' : hexOf(w0 >>> 16)
  for (let i = start === 0 ? end : 1; i < 8; i++) {
    if (i === start) {
      text += ':'
      i = end - 1
      continue
    }
    const word = i < 4 ? (i < 2 ? w0 : w1) : (i < 6 ? w2 : w3)
    const group = (i & 1) === 1 ? word & 0xffff : word >>> 16
    text += group < 256
      ? following[group] as string
      : (following[group >>> 8] as string) + (padded[group & 0xff] as string)
  }
  return end === 8 ? text + ':' : text
}

const zerosOf = (word: number): number => (word >>> 16 === 0 ? 1 : 0) | ((word & 0xffff) === 0 ? 2 : 0)

const hexOf = (group: number): string =>
  group < 256 ? hex[group] as string : (hex[group >>> 8] as string) + (padded[group & 0xff] as string)

export function formatAddress (address: Address): string {
  return address.family === 'IPv4'
    ? formatIPv4(address.w3)
    : formatIPv6(address.w0, address.w1, address.w2, address.w3)
}

/** Parses an address without zone; IPv4-mapped IPv6 becomes IPv4. `undefined` for anything else. */
export function parseAddress (text: string): Address | undefined {
  if (text.includes(':')) return parseIPv6(text)
  const w3 = parseIPv4(text, 0)
  return w3 === undefined ? undefined : { family: 'IPv4', w0: 0, w1: 0, w2: 0, w3 }
}

const DOT = 0x2e
const COLON = 0x3a

/** Parses the dotted decimal address from `start` to the end of `text`; `undefined` for anything else. */
function parseIPv4 (text: string, start: number): number | undefined {
  let word = 0
  let dots = 0
  let octet = -1
  for (let i = start; i < text.length; i++) {
    const code = text.charCodeAt(i)
    const digit = code - 0x30
    if (digit >= 0 && digit <= 9) {
      // No leading zeros: some programs read them as octal.
      if (octet === 0) return undefined
      octet = octet < 0 ? digit : octet * 10 + digit
      if (octet > 255) return undefined
    } else if (code === DOT && octet >= 0) {
      word = word << 8 | octet
      octet = -1
      dots++
    } else {
      return undefined
    }
  }
  return dots === 3 && octet >= 0 ? word << 8 | octet : undefined
}

const groups = new Uint16Array(8)

/** The grammar of RFC 4291 §2.2. */
function parseIPv6 (text: string): Address | undefined {
  let count = 0
  // The number of groups before '::'.
  let gap = -1
  let i = 0
  if (text.startsWith('::')) {
    gap = 0
    i = 2
  }
  while (i < text.length) {
    const start = i
    let group = 0
    for (let digit; i < text.length && (digit = hexDigitOf(text.charCodeAt(i))) >= 0; i++) group = group << 4 | digit
    if (text.charCodeAt(i) === DOT) {
      const word = parseIPv4(text, start)
      if (word === undefined || count > 6) return undefined
      groups[count++] = word >>> 16
      groups[count++] = word & 0xffff
      break
    }
    if (i === start || i - start > 4 || count === 8) return undefined
    groups[count++] = group
    if (i === text.length) break
    if (text.charCodeAt(i++) !== COLON || i === text.length) return undefined
    if (text.charCodeAt(i) === COLON) {
      if (gap >= 0) return undefined
      gap = count
      i++
    }
  }
  if (gap < 0 ? count < 8 : count === 8) return undefined
  const zeros = 8 - count
  const groupAt = (index: number) =>
    (gap < 0 || index < gap ? groups[index] : index < gap + zeros ? 0 : groups[index - zeros]) as number
  const wordAt = (index: number) => groupAt(index) << 16 | groupAt(index + 1)
  const [w0, w1, w2, w3] = [wordAt(0), wordAt(2), wordAt(4), wordAt(6)]
  return w0 === 0 && w1 === 0 && w2 === 0xffff
    ? { family: 'IPv4', w0: 0, w1: 0, w2: 0, w3 }
    : { family: 'IPv6', w0, w1, w2, w3 }
}

/** The value of a hexadecimal digit; -1 for any other character. */
function hexDigitOf (code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30
  const letter = code | 0x20
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1
}

/**
 * The canonical text of an address: RFC 5952, without zone, IPv4-mapped IPv6 as IPv4. `undefined` if it is not an IP
 * address.
 */
export function canonicalAddress (text: unknown): string | undefined {
  if (typeof text !== 'string') return undefined
  const zone = text.indexOf('%')
  const address = parseAddress(zone < 0 ? text : text.slice(0, zone))
  return address && formatAddress(address)
}
