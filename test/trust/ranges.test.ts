import fc from 'fast-check'
import t from 'tap'
import { compileRanges } from '../../lib/ranges'
import { addressOf, anyAddress, bitsOf, numRuns, type Plain, textOf, unmapped, within } from './plain'

t.setTimeout(0)

interface Range {
  readonly network: Plain
  readonly prefix: number
}

function masked ({ family, value }: Plain, prefix: number): Plain {
  const rest = bitsOf({ family }) - BigInt(prefix)
  return { family, value: value >> rest << rest }
}

const range: fc.Arbitrary<Range> = fc.tuple(anyAddress, fc.nat({ max: 128 })).map(([address, length]) => {
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

const list = fc.array(related, { maxLength: 6 }).map((lists) => lists.flat())
  .chain((ranges) => fc.shuffledSubarray(ranges, { minLength: ranges.length }))

/** As a user may write it: IPv4 in its own way or mapped, a whole address without its length. */
function written ({ network, prefix }: Range, style: number): string {
  const isWhole = BigInt(prefix) === bitsOf(network)
  const mapped = network.family === 'IPv4' && style % 3 === 0
  const length = isWhole && style % 2 === 0 ? '' : `/${mapped ? prefix + 96 : prefix}`
  return (mapped ? '::ffff:' : '') + textOf(network) + length
}

// A mapped range is IPv4's; and one of IPv6 that happens to be written so is too long to be anything else.
const meant = ({ network, prefix }: Range): Range =>
  prefix >= 96 && unmapped(network).family === 'IPv4' && network.family === 'IPv6' ? { network: unmapped(network), prefix: prefix - 96 } : { network, prefix }

const isMappedAndShort = ({ network, prefix }: Range) => network.family === 'IPv6' && prefix < 96 && unmapped(network).family === 'IPv4'

t.test('includes() is what a plain search through the list finds', async () => {
  fc.assert(fc.property(list, fc.array(anyAddress, { minLength: 1, maxLength: 8 }), fc.nat(), (ranges, strangers, style) => {
    fc.pre(!ranges.some(isMappedAndShort))
    const { includes } = compileRanges(ranges.map((range, i) => written(range, style + i)), 'list')
    const probes = [...strangers, ...ranges.flatMap(({ network, prefix }) => {
      const { family, value } = network
      const size = 1n << bitsOf(network) - BigInt(prefix)
      return [value - 1n, value, value + size - 1n, value + size]
        .map((at) => ({ family, value: BigInt.asUintN(Number(bitsOf(network)), at) }))
    })]
    for (const probe of probes) {
      const expected = ranges.map(meant).some(({ network, prefix }) => within(probe, network, prefix))
      if (includes(addressOf(probe)) !== expected) throw new Error(`${textOf(probe)} in ${ranges.map((each) => written(each, 1))}: ${!expected}`)
    }
  }), { numRuns })
})

t.test('overlaps() is what a plain search through both lists finds', async () => {
  fc.assert(fc.property(list, list, fc.nat(), (a, b, style) => {
    fc.pre(![...a, ...b].some(isMappedAndShort))
    const compiled = [a, b].map((ranges) => compileRanges(ranges.map((range, i) => written(range, style + i)), 'list'))
    const expected = a.map(meant).some((one) => b.map(meant).some((other) =>
      within(one.network, other.network, other.prefix) || within(other.network, one.network, one.prefix)))
    return compiled[0]!.overlaps(compiled[1]!) === expected && compiled[1]!.overlaps(compiled[0]!) === expected
  }), { numRuns })
})

t.test('anything else than an address, a range or a preset is an error that names it', async () => {
  const right = (text: string) => {
    try {
      compileRanges([text], 'list')
      return true
    } catch (error) {
      const { code, message } = error as { code: string, message: string }
      if (code !== 'FST_REAL_IP_INVALID_OPTION' || !message.includes(`'list' has ${JSON.stringify(text)}`)) throw error
      return false
    }
  }
  fc.assert(fc.property(range, fc.nat(), fc.string({ maxLength: 3 }), fc.nat(), (given, at, noise, style) => {
    fc.pre(!isMappedAndShort(given))
    const text = written(given, style)
    if (!right(text)) throw new Error(`${text} is refused`)
    const i = at % (text.length + 1)
    right(text.slice(0, i) + noise + text.slice(i))
  }), { numRuns })
})

t.test('families never mix, and the ends of the lists', async (t) => {
  const has = (entries: string[], family: 'IPv4' | 'IPv6', value: bigint) => compileRanges(entries, 'list').includes(addressOf({ family, value }))
  t.notOk(has(['::/0'], 'IPv4', 0n))
  t.notOk(has(['::/0'], 'IPv4', 0x7f000001n))
  t.ok(has(['::/0'], 'IPv6', 0n))
  t.ok(has(['::/0'], 'IPv6', 0xffff7f000001n), 'a mapped address that is none of IPv4')
  t.notOk(has(['0.0.0.0/0'], 'IPv6', 0n))
  t.notOk(has(['0.0.0.0/0'], 'IPv6', 0xffff7f000001n))
  t.ok(has(['0.0.0.0/0'], 'IPv4', 0xffffffffn))
  t.ok(has(['::ffff:0.0.0.0/96'], 'IPv4', 0xffffffffn))
  t.notOk(has([], 'IPv4', 0n))
  for (const entry of ['10.0.0.1/8', '::1/0', '10.0.0.0/33', '::/129', '10.0.0.0/', '10.0.0.0/ 8', '10.0.0.0/+8', '10.0.0.0/08x', '/8', '',
    'fe80::1%eth0', 'fe80::%1/10', '::ffff:10.0.0.0/95', '::ffff:0:0/8', '010.0.0.1', '10.1', '0x7f.0.0.1', '1.2.3.4 ', 'Loopback', 'toString', '__proto__']) {
    t.throws(() => compileRanges([entry], 'list'), { code: 'FST_REAL_IP_INVALID_OPTION' }, entry)
  }
  for (const entry of [undefined, null, 1, {}, [], ['10.0.0.0/8'], Symbol.iterator]) {
    t.throws(() => compileRanges([entry], 'list'), { code: 'FST_REAL_IP_INVALID_OPTION' }, String(entry))
  }
})
