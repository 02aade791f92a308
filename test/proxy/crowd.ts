// Clients of a process of their own, which stay silent: opens as many connections as it is told, and tells how many were ended.
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'

export interface Crowd {
  readonly count: number
  readonly port: number
  readonly localAddress: string
  /** What each writes, in hexadecimal digits. */
  readonly bytes: string
}

async function gather ({ count, port, localAddress, bytes }: Crowd): Promise<void> {
  let ended = 0
  const begun = Buffer.from(bytes, 'hex')
  const sockets: Socket[] = []
  for (let i = 0; i < count; i += 100) {
    await Promise.all(Array.from({ length: Math.min(100, count - i) }, async () => {
      const socket = connect({ host: '127.0.0.1', port, localAddress })
      sockets.push(socket)
      socket.on('error', () => {}).once('close', () => {
        if (++ended === count) process.send?.('all ended')
      })
      if (begun.length > 0) socket.write(begun)
      await once(socket, 'connect')
    }))
  }
  process.send?.('all connected')
}

process.on('message', (message) => {
  if (message === 'leave') process.exit()
  void gather(message as Crowd)
})
