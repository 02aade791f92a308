import type { Server, Socket } from 'node:net'

/**
 * The plugin's part of a server's 'connection' events, to be timed in those of another server: nobody else listens to
 * the server of its own application, which never listens on a port.
 */
export function pluginOf (server: Server): (socket: Socket) => void {
  server.removeAllListeners('connection')
  return (socket) => { server.emit('connection', socket) }
}
