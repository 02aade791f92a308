'use strict'

// npx pm2 start examples/pm2.config.js: the environment of that command is the workers'.
module.exports = {
  apps: [{
    name: 'hello',
    script: require.resolve('../dist/examples/pm2.js'),
    exec_mode: 'cluster',
    instances: process.env.WORKERS ?? 'max',
    // A new worker takes over when it listens; the former one ends when it has answered.
    wait_ready: true,
    kill_timeout: 5000, // milliseconds
    // A worker that cannot start, without TRUSTED_PEERS, say, is not started for ever.
    max_restarts: 3,
    min_uptime: 1000 // milliseconds
  }]
}
