import { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import t from 'tap'
import { encodeProxyHeader } from 'fastify-real-ip'
import { Hold } from '../../lib/http/hold'
import { awaitHeader, takeHeader } from '../../lib/http/proxy-headers'
import type { Libc } from '../../lib/kernel/libc'

// What no real connection does; test/proxy has those.

const header = encodeProxyHeader()

t.test('a header whose bytes cannot be dropped is none', async (t) => {
  const libc = (dropped: number) =>
    ({ peeked: new Uint8Array(header), peek: () => header.length, drop: () => dropped }) as unknown as Libc
  t.match(takeHeader(libc(header.length), 3), { version: 2, local: true })
  t.equal(takeHeader(libc(3), 3), 'proxy-cut-short')
})

t.test('after the last application has closed nothing is held', async (t) => {
  const hold = new Hold()
  hold.close()
  let wasReset = false
  const socket = Object.assign(new EventEmitter(), { resetAndDestroy () { wasReset = true } }) as unknown as Socket
  awaitHeader(socket, hold, 1000, () => { t.fail('it is over') })
  t.ok(wasReset)
  t.same(socket.eventNames(), [], 'nobody listens')
})
