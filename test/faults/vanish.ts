// Clients in a thread of their own: each connects, resets the connection at once, and is gone.
import net from 'node:net'
import { workerData } from 'node:worker_threads'

export interface Vanishing {
  readonly port: number
  readonly count: number
  /** Set to 1, and notified, when all are gone. */
  readonly gone: Int32Array
}

const { port, count, gone } = workerData as Vanishing
let left = count
for (let n = 1; n <= count; n++) {
  const socket = net.connect({ port, host: '127.0.0.1', localAddress: `127.0.5.${n}` })
  socket.once('connect', () => { socket.resetAndDestroy() })
  socket.once('close', () => {
    if (--left > 0) return
    Atomics.store(gone, 0, 1)
    Atomics.notify(gone, 0)
  })
}
