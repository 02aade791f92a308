import { isIP } from 'node:net'

export interface Arguments {
  /** The address in TOA. */
  readonly client: string | undefined
  /** Exits after printing instead of serving. */
  readonly once: boolean
}

export const help = `Shows what fastify-real-ip makes of connections that carry a client's address
in TOA, then serves your own requests.

  npm start
  npm start -- --client 198.51.100.23    the client's address, IPv4 or IPv6
  npm start -- --once                    exits after the printout
  npm start -- --help
`

/** Parses the arguments; `'help'` for --help; or an error whose message is meant for the user. */
export function readArguments (given: readonly string[]): Arguments | 'help' | Error {
  let client: string | undefined
  let once = false
  for (let i = 0; i < given.length; i++) {
    const [name, ...rest] = (given[i] as string).split('=')
    const value = rest.length > 0 ? rest.join('=') : undefined
    if (name === '--client') {
      client = value ?? given[++i]
      if (client === undefined || client === '') {
        return new Error('--client needs an address, as in --client 198.51.100.23.')
      }
      if (isIP(client) === 0 || client.includes('%')) {
        return new Error('--client takes an IPv4 or IPv6 address, such as 198.51.100.23 or 2001:db8::7, ' +
          `not '${client}'.`)
      }
    } else if (name === '--once' && value === undefined) {
      once = true
    } else if ((name === '--help' || name === '-h') && value === undefined) {
      return 'help'
    } else {
      return new Error(`Unknown argument '${given[i]}'; use --client ADDRESS, --once or --help.`)
    }
  }
  return { client, once }
}
