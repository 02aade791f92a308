import type { FastifyRealIpOptions, KernelSource } from '../types'
import { FST_REAL_IP_INVALID_OPTION } from './errors'

/** The checked options, frozen. */
export interface Options {
  readonly sources: ReadonlyArray<KernelSource>
  readonly require: boolean
}

export const kernelSources: ReadonlyArray<KernelSource> = Object.freeze(['vtoa', 'getpeername'])

const known = ['sources', 'require']
// Fastify's own options of register(), which reach the plugin too.
const fastifyOptions = ['prefix', 'logLevel', 'logSerializers', 'encapsulate']

const quoted = (names: ReadonlyArray<string>) => names.map((name) => `'${name}'`).join(', ')

export function checkOptions (given: FastifyRealIpOptions): Options {
  for (const key of Object.keys(given)) {
    if (!known.includes(key) && !fastifyOptions.includes(key)) {
      throw new FST_REAL_IP_INVALID_OPTION(`there is no option '${key}'; the options are ${quoted(known)}`)
    }
  }
  return Object.freeze({
    sources: checkSources(given.sources),
    require: checkRequire(given.require)
  })
}

function checkSources (sources: unknown): ReadonlyArray<KernelSource> {
  if (sources === undefined) return kernelSources
  if (!Array.isArray(sources) || sources.length === 0) {
    throw new FST_REAL_IP_INVALID_OPTION(
      `'sources' must be a list of at least one of ${quoted(kernelSources)}, not ${show(sources)}`)
  }
  for (const source of sources) {
    if (!kernelSources.includes(source)) {
      const hint = source === 'peer' ? "; 'peer' is always the last resort and is not written" : ''
      throw new FST_REAL_IP_INVALID_OPTION(
        `'sources' takes ${quoted(kernelSources)}, not ${show(source)}${hint}`)
    }
  }
  if (new Set(sources).size !== sources.length) {
    throw new FST_REAL_IP_INVALID_OPTION(`'sources' names a source twice: ${show(sources)}; name each once`)
  }
  return Object.freeze([...sources])
}

function checkRequire (value: unknown): boolean {
  if (value === undefined) return false
  if (typeof value !== 'boolean') {
    throw new FST_REAL_IP_INVALID_OPTION(`'require' must be true or false, not ${show(value)}`)
  }
  return value
}

function show (value: unknown): string {
  try {
    return JSON.stringify(value) ?? String(value)
  } catch {
    return typeof value
  }
}
