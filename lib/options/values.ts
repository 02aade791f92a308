import { FST_REAL_IP_INVALID_OPTION } from '../errors'

export const invalid = (message: string) => new FST_REAL_IP_INVALID_OPTION(message)

export const quoted = (names: ReadonlyArray<string>) => names.map((name) => `'${name}'`).join(', ')

/** Checks that it is an object without options that `example` does not have. */
export function checkObject<Known extends string> (
  given: unknown, name: string, example: Record<Known, unknown>
): { readonly [Key in Known]?: unknown } {
  if (typeof given !== 'object' || given === null) throw invalid(`${name} must be an object like ${show(example)}, not ${show(given)}`)
  const stranger = Object.keys(given).find((key) => !Object.hasOwn(example, key))
  if (stranger !== undefined) throw invalid(`there is no '${stranger}' in ${name}; write ${show(example)}`)
  return given
}

export const isWhole = (value: unknown, least: number, most: number): value is number =>
  Number.isInteger(value) && value as number >= least && value as number <= most

export function show (value: unknown): string {
  try {
    return JSON.stringify(value) ?? String(value)
  } catch {
    return typeof value
  }
}
