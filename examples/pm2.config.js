'use strict'

// npx pm2 start examples/pm2.config.js: the workers inherit the environment of this command.
module.exports = {
  apps: [{
    name: 'hello',
    script: require.resolve('../dist/examples/pm2.js'),
    exec_mode: 'cluster',
    instances: process.env.WORKERS ?? 'max',
    // A new worker takes over when it listens; the old one exits after its last response.
    wait_ready: true,
    kill_timeout: 5000, // milliseconds
    // A worker that cannot start, e.g. without TRUSTED_PEERS, must not be restarted forever.
    max_restarts: 3,
    min_uptime: 1000 // milliseconds
  }]
}
