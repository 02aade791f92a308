import fc from 'fast-check'
import t from 'tap'
import { decodeReplies, encodeDump, encodeExact, REQUEST } from '../../lib/kernel/sock-diag'
import { TCP_CLOSE_WAIT, TCP_ESTABLISHED } from '../../lib/kernel/constants'
import { createEndpoint } from '../../lib/kernel/sockaddr'
import { numRuns, plainOf, textOf } from '../trust/plain'
import { AF_INET, AF_INET6, answers, HEADER, octets, plainAnswers, SOCK_DIAG_BY_FAMILY, u16, u32 } from '../trust/plain-answers'

t.setTimeout(0)

t.test('answers of the kernel: any bytes, of any length', async (t) => {
  let connections = 0
  fc.assert(fc.property(answers, (bytes) => {
    const expected = plainAnswers(Buffer.from(bytes))
    // Whoever reads past the end gets another answer by one of them.
    for (const tail of [0, 10, 255]) {
      const given = Uint8Array.from([...bytes, ...new Array(200).fill(tail)])
      const into = createEndpoint()
      const found: string[] = []
      const rest = decodeReplies(given, bytes.length, into, (cookie) => { found.push(`${cookie} ${textOf(plainOf(into))} ${into.port}`) })
      if (rest !== expected.rest || found.join() !== expected.found.join()) throw new Error(`${rest} ${found} instead of ${expected.rest} ${expected.found}`)
    }
    connections += expected.found.length
  }), { numRuns })
  t.ok(connections > numRuns / 10, `${connections} connections in ${numRuns} answers`)
})

t.test('requests: any addresses, and nothing of the request before', async () => {
  fc.assert(fc.property(fc.constantFrom(AF_INET, AF_INET6), octets(28, 28), octets(28, 28), octets(8, 8), fc.nat({ max: 65535 }), (family, local, peer, cookie, port) => {
    const requests = [0, 255].map((before) => {
      const exact = Buffer.alloc(REQUEST + 8, before)
      encodeExact(exact, family, local, peer, cookie)
      const dump = Buffer.alloc(REQUEST + 8, before)
      encodeDump(dump, family, port)
      for (const request of [exact, dump]) {
        if (request.subarray(REQUEST).some((byte) => byte !== before)) throw new Error('it was written past its end')
        if (u32(request, 0) !== REQUEST || u16(request, 4) !== SOCK_DIAG_BY_FAMILY || request[HEADER] !== family) throw new Error('the header')
      }
      if (dump.readUInt16BE(HEADER + 8) !== port) throw new Error('the port')
      const [at, length] = family === AF_INET ? [4, 4] : [8, 16]
      if (!exact.subarray(HEADER + 12, HEADER + 12 + length).equals(local.subarray(at, at + length))) throw new Error('the local address')
      if (!exact.subarray(HEADER + 28, HEADER + 28 + length).equals(peer.subarray(at, at + length))) throw new Error('the peer address')
      const scope = family === AF_INET6 ? peer.subarray(24, 28) : Buffer.alloc(4)
      if (!exact.subarray(HEADER + 44, HEADER + 48).equals(scope)) throw new Error('the interface')
      if (u32(exact, HEADER + 4) !== 0xffffffff || u32(dump, HEADER + 4) !== (1 << TCP_ESTABLISHED | 1 << TCP_CLOSE_WAIT)) throw new Error('the states')
      if (!exact.subarray(HEADER + 48, HEADER + 56).equals(cookie)) throw new Error('the cookie')
      return Buffer.concat([exact.subarray(0, REQUEST), dump.subarray(0, REQUEST)])
    })
    return requests[0]!.equals(requests[1]!)
  }), { numRuns })
})
