import { isIPv4, SocketAddress } from 'node:net'
import fc from 'fast-check'
import t from 'tap'
import {
  ACK, addressBytes, atomicFragmentHeader, decodeSegment, encodeSegment, IPPROTO_HOPOPTS, optionsHeader, PSH
} from './packet'

t.test('addresses of every spelling', (t) => {
  t.same([...addressBytes('203.0.113.7')], [203, 0, 113, 7])
  for (const [text, hex] of [
    ['::', '0'.repeat(32)],
    ['::1', '1'.padStart(32, '0')],
    ['2001:db8::', '20010db8'.padEnd(32, '0')],
    ['2001:db8::a:7', '20010db80000000000000000000a0007'],
    ['1:2:3:4:5:6:7:8', '00010002000300040005000600070008'],
    ['::ffff:203.0.113.7', '00000000000000000000ffffcb007107'],
    ['64:ff9b::198.51.100.1', '0064ff9b0000000000000000c6336401']
  ] as const) t.equal(addressBytes(text).toString('hex'), hex, text)
  fc.assert(fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (bytes) => {
    const groups = Buffer.from(bytes).toString('hex').replace(/....(?=.)/g, '$&:')
    const { address } = new SocketAddress({ address: groups, family: 'ipv6' })
    return addressBytes(groups).equals(bytes) && addressBytes(address).equals(bytes)
  }))
  for (const text of ['', '1.2.3', '1.2.3.4:5', 'fe80::1%lo']) t.throws(() => addressBytes(text), TypeError, text)
  t.end()
})

t.test('what is encoded is decoded', (t) => {
  for (const [source, destination] of [['10.0.0.2', '10.0.0.1'], ['fd00::2', 'fd00::1']] as const) {
    const segment = {
      source: addressBytes(source),
      destination: addressBytes(destination),
      sourcePort: 40_000,
      destinationPort: 8080,
      sequence: 0xfffffffe,
      acknowledgment: 1,
      flags: ACK | PSH,
      window: 1000,
      options: Buffer.of(1, 1, 1, 1),
      payload: Buffer.from('odd')
    }
    const packet = encodeSegment({ ...segment, ipOptions: isIPv4(source) ? Buffer.of(1) : undefined })
    // Bytes behind the packet, as short Ethernet frames have them, are none of it.
    t.same(decodeSegment(Buffer.concat([packet, Buffer.alloc(6)])), segment)
    t.same(decodeSegment(encodeSegment({ ...segment, options: Buffer.of(1), dataOffset: 7 }))?.options, Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]))
    t.same(decodeSegment(encodeSegment({ ...segment, options: Buffer.of(1, 2, 3, 4), dataOffset: 5 }))?.payload, Buffer.from('\x01\x02\x03\x04odd'))
    t.throws(() => encodeSegment({ ...segment, options: Buffer.alloc(41) }), RangeError)
  }
  t.end()
})

t.test('extension headers are chained by type', (t) => {
  const packet = encodeSegment({
    source: addressBytes('fd00::2'),
    destination: addressBytes('fd00::1'),
    sourcePort: 1,
    destinationPort: 2,
    sequence: 3,
    acknowledgment: 0,
    flags: 0,
    window: 0,
    payload: Buffer.alloc(0),
    extensionHeaders: [optionsHeader(IPPROTO_HOPOPTS, 16), atomicFragmentHeader]
  })
  t.equal(packet.readUInt8(6), 0, 'hop-by-hop')
  t.same([packet.readUInt8(40), packet.readUInt8(41)], [44, 1], 'then a fragment')
  t.equal(packet.readUInt8(56), 6, 'then TCP')
  t.equal(packet.readUInt16BE(64), 1, 'where the source port stands')
  t.equal(packet.readUInt16BE(4), packet.length - 40)
  t.end()
})

t.test('what holds no segment', (t) => {
  for (const bytes of [[], [0x45], [0x60], [0x10]]) t.equal(decodeSegment(Buffer.from(bytes)), undefined)
  const udp = Buffer.alloc(28)
  udp.set([0x45, 0, 0, 28])
  udp.writeUInt8(17, 9)
  t.equal(decodeSegment(udp), undefined)
  udp.writeUInt8(6, 9)
  t.equal(decodeSegment(udp), undefined, 'too short for TCP')
  t.end()
})
