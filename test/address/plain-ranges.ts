import fc from 'fast-check'
import { anyAddress, bitsOf, parsePlain, type Plain, textOf, unmapped } from '../trust/plain'

// Lists of ranges that have to do with one another, and how a user may write them.

export interface Range {
  readonly network: Plain
  readonly prefix: number
}

function masked ({ family, value }: Plain, prefix: number): Plain {
  const rest = bitsOf({ family }) - BigInt(prefix)
  return { family, value: value >> rest << rest }
}

export const range: fc.Arbitrary<Range> = fc.tuple(anyAddress, fc.nat({ max: 128 })).map(([address, length]) => {
  const prefix = length % (Number(bitsOf(address)) + 1)
  return { network: masked(address, prefix), prefix }
})

/** The range itself, its neighbours, its halves and what holds it: lists are seldom of strangers alone. */
const related: fc.Arbitrary<Range[]> = range.chain(({ network, prefix }) => {
  const bits = bitsOf(network)
  const size = 1n << bits - BigInt(prefix)
  const moved = (by: bigint): Range => ({
    network: { family: network.family, value: BigInt.asUintN(Number(bits), network.value + by) }, prefix
  })
  const all = [
    { network, prefix }, { network, prefix }, moved(size), moved(-size),
    ...(BigInt(prefix) < bits ? [{ network, prefix: prefix + 1 }] : []),
    ...(prefix > 0 ? [{ network: masked(network, prefix - 1), prefix: prefix - 1 }] : [])
  ]
  return fc.subarray(all, { minLength: 1 })
})

export const list = fc.array(related, { maxLength: 6 }).map((lists) => lists.flat())
  .chain((ranges) => fc.shuffledSubarray(ranges, { minLength: ranges.length }))

/** As a user may write it: IPv4 in its own way or mapped, a whole address without its length. */
export function written ({ network, prefix }: Range, style: number): string {
  const isWhole = BigInt(prefix) === bitsOf(network)
  const mapped = network.family === 'IPv4' && style % 3 === 0
  const length = isWhole && style % 2 === 0 ? '' : `/${mapped ? prefix + 96 : prefix}`
  return (mapped ? '::ffff:' : '') + textOf(network) + length
}

// A mapped range is IPv4's; and one of IPv6 that happens to be written so is too long to be anything else.
export const meant = ({ network, prefix }: Range): Range =>
  prefix >= 96 && unmapped(network).family === 'IPv4' && network.family === 'IPv6' ? { network: unmapped(network), prefix: prefix - 96 } : { network, prefix }

export const isMappedAndShort = ({ network, prefix }: Range) => network.family === 'IPv6' && prefix < 96 && unmapped(network).family === 'IPv4'

const presets: Readonly<Record<string, string>> = {
  loopback: '127.0.0.0/8 ::1/128',
  linklocal: '169.254.0.0/16 fe80::/10',
  uniquelocal: '10.0.0.0/8 172.16.0.0/12 192.168.0.0/16 fc00::/7'
}

/** What an entry of a list stands for; undefined where it may not stand there. */
export function plainRange (entry: unknown): Range[] | undefined {
  if (typeof entry !== 'string') return undefined
  if (Object.keys(presets).includes(entry)) return presets[entry]!.split(' ').flatMap((text) => plainRange(text)!)
  const [, text, digits] = /^([^/]*)(?:\/([0-9]{1,3}))?$/s.exec(entry) ?? []
  const network = text === undefined ? undefined : parsePlain(text)
  if (network === undefined) return undefined
  const range = { network, prefix: Number(digits ?? bitsOf(network)) }
  if (range.prefix > bitsOf(network) || isMappedAndShort(range)) return undefined
  return masked(network, range.prefix).value === network.value ? [meant(range)] : undefined
}
