import fc from 'fast-check'
import t from 'tap'
import { formatIPv6 } from '../../lib/address/address'
import { readDecimal, readIPv4, readIPv6 } from '../../lib/address/ascii'
import { guarded } from '../kernel/plain-syn'
import { anyAddress, numRuns, parsePlain, textOf } from '../trust/plain'

const words = { w0: 0, w1: 0, w2: 0, w3: 0 }

/** What the text is, read from the middle of other bytes. */
function read (text: string): string | undefined {
  const bytes = Buffer.from(`12:${text}`, 'latin1')
  const { length } = bytes
  if (readIPv4(guarded(bytes), 3, length, words)) return textOf({ family: 'IPv4', value: BigInt(words.w3 >>> 0) })
  if (!readIPv6(guarded(bytes), 3, length, words)) return undefined
  const plain = parsePlain(formatIPv6(words.w0, words.w1, words.w2, words.w3))
  return plain && textOf(plain)
}

const plain = (text: string) => {
  const address = parsePlain(text)
  return address && textOf(address)
}

t.test('addresses are read as the second implementation reads them', async (t) => {
  const texts = [
    '', '0', '1.2.3', '1.2.3.4', '1.2.3.4.', '.1.2.3.4', '1.2.3.4.5', '1..3.4', '01.2.3.4', '1.2.3.04', '00.0.0.0', '0.0.0.0', '255.255.255.255', '256.1.1.1', '1.2.3.1000',
    '1.2.3.4 ', '+1.2.3.4', '0x1.2.3.4', '::', ':', ':::', '::1', '1::', '1::2', '1:::2', '1::2::3', '::1::', '1:2:3:4:5:6:7:8', '1:2:3:4:5:6:7', '1:2:3:4:5:6:7:8:9',
    '1:2:3:4:5:6:7::', '::2:3:4:5:6:7:8', '1:2:3:4:5:6:7:8::', '1:2:3:4::5:6:7:8', '1:2:3:4:5:6:7:', ':1:2:3:4:5:6:7', '12345::', 'G::', 'aBcD:eF::', 'fe80::1%eth0', '::ffff:1.2.3.4',
    '::1.2.3.4', '1:2:3:4:5:6:1.2.3.4', '1:2:3:4:5:6:7:1.2.3.4', '1:2:3:4:5:1.2.3.4', '::1.2.3.4:5', '::1.2.3', '::01.2.3.4', '1.2.3.4::', '::.1.2.3', '::12345.2.3.4', '::ffff', '0000:0000::0001', '1.2.3.', '::@', '::`', '::g', '::/'
  ]
  for (const text of texts) t.equal(read(text), plain(text), text)
  t.ok(texts.filter((text) => plain(text) !== undefined).length > 15)
})

t.test('so are addresses of any kind, and texts that are nearly so', async (t) => {
  let addresses = 0
  const text = fc.oneof(
    anyAddress.map(textOf),
    anyAddress.map((address) => textOf(address).replace(/(?:^|:)(?:0(?::|$))+/, '::')),
    fc.string({ unit: fc.constantFrom(...'0123456789abcdefF::::...'), maxLength: 24 }),
    fc.tuple(anyAddress, anyAddress).map(([a, b]) => textOf(a).split(':').slice(0, 6).join(':') + ':' + textOf(b)))
  fc.assert(fc.property(text, (text) => {
    const expected = plain(text)
    if (expected !== undefined) addresses++
    return read(text) === expected
  }), { numRuns })
  t.ok(addresses > numRuns / 10, `${addresses} of ${numRuns} were addresses`)
})

t.test('whole numbers', async (t) => {
  const number = (text: string, max: number) => readDecimal(guarded(Buffer.from(text)), 0, text.length, max)
  for (const [text, max, expected] of [
    ['0', 255, 0], ['9', 255, 9], ['255', 255, 255], ['256', 255, -1], ['65535', 65535, 65535], ['65536', 65535, -1], ['99999999999999999999', 65535, -1],
    ['', 255, -1], ['00', 255, -1], ['080', 65535, -1], ['+80', 65535, -1], ['-1', 65535, -1], ['1.', 255, -1], ['/', 255, -1], [':', 255, -1]
  ] as const) t.equal(number(text, max), expected, text)
})
