// Prints its port, and tells one connection who it is and what 1348 says of it.

import { createServer, type AddressInfo } from 'node:net'
import { ask1348 } from './ask'

const server = createServer((socket) => {
  socket.end(`${process.getuid?.()}: ${ask1348(socket)}`)
  server.close()
}).listen(0, '127.0.0.1', () => {
  process.stdout.write(String((server.address() as AddressInfo).port))
})
