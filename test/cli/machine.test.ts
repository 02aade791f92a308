import { channel, tracingChannel } from 'node:diagnostics_channel'
import type { AddressInfo, Server, Socket } from 'node:net'
import { constants } from 'node:os'
import t from 'tap'
import { type Kernel, readMachine } from '../../lib/cli/machine'
import { type Libc, loadLibc } from '../../lib/kernel/libc'

if (process.platform !== 'linux') {
  t.plan(0, 'the doctor asks Linux')
  process.exit()
}

const kernelNow = async () => (await readMachine()).kernel

t.test('the connection that is looked into is loopback alone, and asks no resolver', async (t) => {
  const opened: string[] = []
  const lookups: string[] = []
  const onListening = (message: object) => { opened.push(((message as { server: Server }).server.address() as AddressInfo).address) }
  const onSocket = (message: unknown) => {
    (message as { socket: Socket }).socket.on('lookup', (_error, _address, _family, host) => { lookups.push(host) })
  }
  const listening = tracingChannel('net.server.listen')
  const subscribers = { asyncEnd: onListening } as Parameters<typeof listening.subscribe>[0]
  listening.subscribe(subscribers)
  channel('net.client.socket').subscribe(onSocket)
  t.teardown(() => {
    listening.unsubscribe(subscribers)
    channel('net.client.socket').unsubscribe(onSocket)
  })
  t.match(await kernelNow(), { saveSyn: undefined, savedSyn: true, diag: true })
  t.same([opened, lookups], [['127.0.0.1'], []])
})

t.test('a connection that is not made in time', async (t) => {
  t.intercept(AbortSignal, 'timeout', { value: () => AbortSignal.abort() })
  t.equal(await kernelNow(), 'no loopback connection can be opened (ABORT_ERR)')
})

t.test('netlink refused', async (t) => {
  t.intercept(loadLibc() as Libc, 'openDiag', { value: () => constants.errno.EPERM })
  t.equal((await kernelNow() as Kernel).diag, false)
})
