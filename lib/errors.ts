import createError from '@fastify/error'

export const FST_REAL_IP_INVALID_OPTION = createError<[string]>(
  'FST_REAL_IP_INVALID_OPTION', 'fastify-real-ip: %s', 500, TypeError)

export const FST_REAL_IP_ALREADY_REGISTERED = createError<[]>(
  'FST_REAL_IP_ALREADY_REGISTERED',
  'fastify-real-ip is already registered on this server with other options. A connection is read once for the whole ' +
  'server: register the plugin once, at the root, or give the same options each time', 500)

export const FST_REAL_IP_NATIVE_UNAVAILABLE = createError<[string]>(
  'FST_REAL_IP_NATIVE_UNAVAILABLE', 'fastify-real-ip: no configured source can work here: %s', 500)

export const FST_REAL_IP_NO_TRANSPORT_PEER = createError<[string]>(
  'FST_REAL_IP_NO_TRANSPORT_PEER',
  "fastify-real-ip: 'trustedPeers' needs the true sender of each connection, which cannot be determined here: %s", 500)

export const FST_REAL_IP_NAME_TAKEN = createError<[string]>(
  'FST_REAL_IP_NAME_TAKEN',
  'fastify-real-ip: other code has already decorated %s. Remove that decorator, or register it in a separate scope',
  500)
