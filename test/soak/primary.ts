// The primary of a round-robin worker, which is server.js: passes on what it is asked and what it answers.

import cluster from 'node:cluster'

cluster.setupPrimary({ exec: require.resolve('./server') })
const worker = cluster.fork()
process.on('message', (message) => { worker.send(message as object) })
worker.on('message', (message) => process.send?.(message))
worker.on('exit', () => process.exit())
process.on('disconnect', () => process.exit())
