import { FST_REAL_IP_INVALID_OPTION } from '../errors'

/** Formats a value for an error message. */
export function show (value: unknown): string {
  try {
    return JSON.stringify(value) ?? String(value)
  } catch {
    return typeof value
  }
}

export const quoted = (names: ReadonlyArray<string>): string => names.map((name) => `'${name}'`).join(', ')

export const invalid = (message: string): Error => new FST_REAL_IP_INVALID_OPTION(message)

export const isWhole = (value: unknown, least: number, most: number): value is number =>
  Number.isInteger(value) && value as number >= least && value as number <= most

/**
 * The own properties of an object: properties of a (polluted) Object.prototype are no settings. Throws if one of
 * `known` is inherited from another object, or not enumerable: it would be lost.
 */
export function ownOf<Known extends string> (
  given: object, known: ReadonlyArray<Known>
): { readonly [Key in Known]?: unknown } {
  const own = Object.assign(Object.create(null), given)
  const lost = known.find((name) => name in given && !(name in own) &&
    (Object.hasOwn(given, name) || !(name in Object.prototype)))
  if (lost !== undefined) throw invalid(`'${lost}' is not an own property, or not enumerable: write a plain object`)
  return own
}

export function checkFlag (name: string, value: unknown): boolean {
  if (value === undefined) return false
  if (typeof value !== 'boolean') throw invalid(`'${name}' must be true or false, not ${show(value)}`)
  return value
}

/** Checks that `given` is an object with no properties other than `example`'s; returns its own properties. */
export function checkObject<Known extends string> (
  given: unknown, name: string, example: Record<Known, unknown>
): { readonly [Key in Known]?: unknown } {
  if (typeof given !== 'object' || given === null) {
    throw invalid(`${name} must be an object like ${show(example)}, not ${show(given)}`)
  }
  const unknownKey = Object.keys(given).find((key) => !Object.hasOwn(example, key))
  if (unknownKey !== undefined) throw invalid(`there is no '${unknownKey}' in ${name}; write ${show(example)}`)
  return ownOf(given, Object.keys(example) as Known[])
}

/** The most similar of `names`, if any is similar enough. */
export function nearest (text: string, names: ReadonlyArray<string>): string | undefined {
  const plain = (name: string) => name.toLowerCase().replace(/[^a-z]/g, '')
  return names.find((name) => distance(plain(text), plain(name)) <= Math.min(2, name.length / 3))
}

/** The Levenshtein distance. */
function distance (a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const replaced = (row[j - 1] as number) + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(replaced, (row[j] as number) + 1, (next[j - 1] as number) + 1))
    }
    row = next
  }
  return row[b.length] as number
}
