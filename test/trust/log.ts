import type { FastifyBaseLogger } from 'fastify'

export interface Log {
  readonly logger: FastifyBaseLogger
  /** The codes of the warnings. */
  readonly codes: string[]
  /** The messages of the errors. */
  readonly errors: string[]
}

/** A logger that keeps what this plugin says. */
export function logOf (): Log {
  const codes: string[] = []
  const errors: string[] = []
  const logger = {
    level: 'warn',
    fatal () {},
    error (_fields: object, message: string) { errors.push(message) },
    warn ({ code }: { code: string }) { codes.push(code) },
    info () {},
    debug () {},
    trace () {},
    silent () {},
    child: () => logger
  } as unknown as FastifyBaseLogger
  return { logger, codes, errors }
}
