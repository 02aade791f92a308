import fc from 'fast-check'
import t from 'tap'
import { compileRanges } from '../../lib/address/ranges'
import { addressOf, anyAddress, bitsOf, numRuns, textOf, within } from '../trust/plain'
import { isMappedAndShort, list, meant, range, written } from './plain-ranges'

t.setTimeout(0)

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
  t.throws(() => compileRanges(['::ffff:0:0/8'], 'list'), { message: /shorter than \/96 spans more than IPv4; write the IPv4 range, and the IPv6 range apart$/ })
  for (const entry of [undefined, null, 1, {}, [], ['10.0.0.0/8'], ['loopback'], Symbol.iterator]) {
    t.throws(() => compileRanges([entry], 'list'), { code: 'FST_REAL_IP_INVALID_OPTION' }, String(entry))
  }
})

t.test('presets', async (t) => {
  const presets: Record<string, string[]> = {
    loopback: ['127.0.0.0/8', '::1/128'],
    linklocal: ['169.254.0.0/16', 'fe80::/10'],
    uniquelocal: ['10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', 'fc00::/7']
  }
  for (const [name, ranges] of Object.entries(presets)) t.same(compileRanges([name], 'list').list, compileRanges(ranges, 'list').list, name)
  const says = /one of 'loopback', 'linklocal', 'uniquelocal'$/
  t.throws(() => compileRanges([1], 'list'), { message: says })
  t.throws(() => compileRanges(['balancer.example'], 'list'), { message: says })
})
