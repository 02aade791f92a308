// The client's address of a WebSocket.
// TRUSTED_PEERS=127.0.0.1 node dist/examples/websocket.js, then: npx wscat -c ws://127.0.0.1:3000/ws

import websocket from '@fastify/websocket'
import Fastify from 'fastify'
import realIp from 'fastify-real-ip'

const { HOST = '127.0.0.1', PORT = '3000', TRUSTED_PEERS = '' } = process.env
// If TRUSTED_PEERS is missing or empty, this is not a list of addresses, and the server fails to start.
const trustedPeers = TRUSTED_PEERS === 'any' ? TRUSTED_PEERS : TRUSTED_PEERS.split(',')

async function main (): Promise<void> {
  const app = Fastify({ logger: true })
  await app.register(realIp, { trustedPeers })
  await app.register(websocket)

  app.get('/ws', { websocket: true }, (socket, request) => {
    socket.send(`Hello, ${request.realIp}`)
    socket.on('message', (message) => {
      // The answer stays the same for the connection's lifetime.
      request.log.info({ client: request.realIp, bytes: message.toString().length }, 'message')
      socket.send(String(message))
    })
  })

  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => { app.close() })
  await app.listen({ host: HOST, port: Number(PORT) })
}

main()
