import t from 'tap'
import fc from 'fast-check'
import { formatIPv4, formatIPv6 } from '../../lib/address/address'
import { AF_INET, AF_INET6 } from '../../lib/kernel/constants'
import {
  copyEndpoint, createEndpoint, decodeAddress, decodeSockaddr, type Endpoint, keepEndpoint, sameEndpoint, SOCKADDR_STORAGE, uint16
} from '../../lib/kernel/sockaddr'

const view = (answer: Uint8Array) => new DataView(answer.buffer)

const bytes = (...values: number[]) => {
  const all = new Uint8Array(SOCKADDR_STORAGE)
  all.set(values)
  return all
}

const text = (e: Endpoint) => e.family === 'IPv4' ? formatIPv4(e.w3) : formatIPv6(e.w0, e.w1, e.w2, e.w3)

t.test('sockaddr_in', async (t) => {
  const into = createEndpoint()
  t.ok(decodeSockaddr(view(bytes(2, 0, 0x1f, 0x90, 203, 0, 113, 7)), AF_INET, into))
  t.same([into.family, text(into), into.port], ['IPv4', '203.0.113.7', 8080])
})

t.test('sockaddr_in6, its flow label and scope are no part of the address', async (t) => {
  const into = createEndpoint()
  const answer = bytes(10, 0, 0xff, 0xff, 1, 2, 3, 4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 9, 9, 9, 9)
  t.ok(decodeSockaddr(view(answer), AF_INET6, into))
  t.same([into.family, text(into), into.port], ['IPv6', '2001:db8::1', 65535])
})

t.test('an IPv4-mapped IPv6 address is IPv4', async (t) => {
  const into = createEndpoint()
  const answer = bytes(10, 0, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 7)
  t.ok(decodeSockaddr(view(answer), AF_INET6, into))
  t.same([into.family, text(into), into.port], ['IPv4', '203.0.113.7', 80])
})

t.test('what only looks like one stays IPv6', async (t) => {
  const into = createEndpoint()
  for (const [words, expected] of [
    [[0x20010db8, 0, 0xffff], '2001:db8::ffff:cb00:7107'],
    [[0, 0x20010db8, 0xffff], '::2001:db8:0:ffff:cb00:7107'],
    [[0, 0, 0xfffe], '::fffe:cb00:7107'],
    [[0, 0, 0], '::cb00:7107']
  ] as const) {
    const answer = bytes(10)
    for (const [n, word] of [...words, 0xcb007107].entries()) view(answer).setUint32(8 + 4 * n, word)
    decodeSockaddr(view(answer), AF_INET6, into)
    t.same([into.family, text(into)], ['IPv6', expected])
  }
})

t.test('endpoints are the same where all of them is', async (t) => {
  const one: Endpoint = { family: 'IPv6', port: 80, w0: 1, w1: 2, w2: 3, w3: 4 }
  const copy = createEndpoint()
  t.same(copy, { family: 'IPv4', port: 0, w0: 0, w1: 0, w2: 0, w3: 0 })
  copyEndpoint(one, copy)
  t.same(copy, one)
  t.ok(sameEndpoint(one, copy))
  for (const other of [{ family: 'IPv4' }, { port: 81 }, { w0: 0 }, { w1: 0 }, { w2: 0 }, { w3: 0 }] as const) {
    t.notOk(sameEndpoint(one, { ...one, ...other }), JSON.stringify(other))
  }
})

t.test('an endpoint that is kept does not change with the one that it was copied from', async (t) => {
  const one: Endpoint = { family: 'IPv6', port: 443, w0: 0x20010db8, w1: 1, w2: 2, w3: 7 }
  const reused = { ...one }
  const kept = keepEndpoint(reused)
  copyEndpoint({ family: 'IPv4', port: 51234, w0: 0, w1: 0, w2: 0, w3: 0xcb007107 | 0 }, reused)
  t.same(kept, one)
})

t.test('addresses and ports within other bytes', async (t) => {
  const into = createEndpoint()
  const decode = (isIPv6: boolean, ...values: number[]) => {
    decodeAddress(bytes(255, ...values, 255), 1, isIPv6, into)
    return [into.family, text(into)]
  }
  t.same(decode(true, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), ['IPv6', '2001:db8::1'])
  t.same(decode(false, 203, 0, 113, 7), ['IPv4', '203.0.113.7'], 'nothing is left of the one before')
  t.same(decode(true, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 203, 0, 113, 8), ['IPv4', '203.0.113.8'])
  t.equal(uint16(bytes(1, 0xc8, 0x22, 1), 1), 51234)
})

t.test('any other family leaves the endpoint alone', async (t) => {
  const into = createEndpoint()
  const before = { ...into }
  t.doesNotThrow(() => fc.assert(fc.property(
    fc.integer({ min: 0, max: 0xffff }).filter((family) => family !== AF_INET && family !== AF_INET6),
    fc.uint8Array({ minLength: SOCKADDR_STORAGE, maxLength: SOCKADDR_STORAGE }),
    (family, answer) => decodeSockaddr(view(answer), family, into) === false)))
  t.same(into, before)
})

t.test('any bytes at all give the address that stands in them', async (t) => {
  const into = createEndpoint()
  t.doesNotThrow(() => fc.assert(fc.property(fc.uint8Array({ minLength: SOCKADDR_STORAGE, maxLength: SOCKADDR_STORAGE }), (answer) => {
    const given = view(answer)
    decodeSockaddr(given, AF_INET, into)
    const v4 = into.family === 'IPv4' && into.port === given.getUint16(2) && text(into) === answer.subarray(4, 8).join('.')
    decodeSockaddr(given, AF_INET6, into)
    return v4 && into.port === given.getUint16(2) && into.w3 === given.getInt32(20)
  })))
})
