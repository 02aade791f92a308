import { FST_REAL_IP_INVALID_OPTION } from '../errors'

const warned = new Set<string>()

/**
 * Whether a factory was passed without being called, and so receives a request or an answer. Warns once and never
 * throws: this shows only when a request is served.
 */
export function isNotCalled (given: unknown, factory: string, isArgument: (given: unknown) => boolean): boolean {
  if (isArgument(given) || !(isRequestOrAnswer(given) || warned.has(factory))) return false
  if (!warned.has(factory)) {
    warned.add(factory)
    process.emitWarning(`fastify-real-ip: ${factory} was passed without being called: write ${call(factory)}`, {
      type: 'FastifyRealIpWarning', code: 'FST_REAL_IP_NOT_CALLED'
    })
  }
  return true
}

/** Throws if an option is a factory that should have been called. */
export function refuseFactory (value: unknown, factories: Readonly<Record<string, unknown>>, option: string): void {
  const found = Object.keys(factories).find((name) => factories[name] === value)
  if (value !== undefined && found !== undefined) {
    throw new FST_REAL_IP_INVALID_OPTION(`'${option}' is ${found} itself: write ${call(found)}`)
  }
}

const call = (factory: string) => factory === 'realIpIn' ? 'realIpIn(list)' : `${factory}()`

const isRequestOrAnswer = (given: unknown) => typeof given === 'object' && given !== null &&
  ['raw', 'headers', 'socket', 'method', 'url', 'realAddress', 'attempts'].some((name) => name in given)

/** For factories that take an options object, or nothing. */
export const isOptions = (...known: ReadonlyArray<string>) => (given: unknown): boolean =>
  given === undefined ||
    (typeof given === 'object' && given !== null && Object.keys(given).every((key) => known.includes(key)))
