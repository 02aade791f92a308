import { createContext, Script } from 'node:vm'
import fc from 'fast-check'
import type { Target } from './targets'

// Property-based rather than guided by coverage: the decoders are small, so that inputs which know the structure reach every
// branch of them at once, and what matters is the comparison with a second implementation at each. Jazzer.js was tried:
// its prebuilt addon needs glibc 2.38, which Debian 12 does not have, and there is none for musl.

/** A Proxy that throws where a byte behind the last is read, or bytes are read far more often than there are any. */
export function guarded (input: Uint8Array): Uint8Array {
  let reads = 64 + 32 * input.length
  return new Proxy(input, {
    get (target, name) {
      if (typeof name !== 'string' || !/^\d/.test(name)) return Reflect.get(target, name)
      if (Number(name) >= target.length) throw new Error(`byte ${name} of ${target.length} was read`)
      if (reads-- === 0) throw new Error(`${target.length} bytes were read again and again`)
      return target[Number(name)]
    }
  })
}

export class Finding extends Error {
  constructor (readonly target: Target, readonly input: Uint8Array, override readonly cause: Error) {
    super(`${target.name}: ${cause.message}`)
  }
}

/** fast-check makes an input, and it and so many changed copies of it are tried. */
const COPIES = 9
const INPUTS = 100
/** A Proxy costs more than all the rest, so that one of so many inputs has the guard. */
const GUARDED = 20

/** So many milliseconds for a batch, which takes a tenth of a second: whoever needs more does not end. */
const PATIENCE = 60_000
const batch = new Script('run()')

/** Tries so many cases, of the corpus and of its own; throws a Finding. The same seed makes the same cases. */
export function fuzz (target: Target, corpus: readonly Uint8Array[], cases: number, seed: number, patience = PATIENCE): void {
  const random = generator(seed)
  let input: Uint8Array = new Uint8Array(0)
  let done = 0
  const context = createContext({
    run () {
      const inputs = fc.sample(target.inputs, { numRuns: INPUTS, seed: random(0x7fffffff) })
      for (const [i, made] of inputs.entries()) {
        const start = i % 5 === 0 && corpus.length > 0 ? corpus[random(corpus.length)] as Uint8Array : made
        const guard = i % GUARDED === 0 ? guarded : (input: Uint8Array) => input
        for (let copy = 0; copy <= COPIES && done < cases; copy++, done++) {
          input = copy === 0 ? start : mutate(target, start, inputs[random(INPUTS)] as Uint8Array, random)
          const error = failure(target, input, guard)
          if (error !== undefined) throw new Finding(target, ...shrink(target, input, error))
        }
      }
    }
  })
  try {
    while (done < cases) batch.runInContext(context, { timeout: patience })
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ERR_SCRIPT_EXECUTION_TIMEOUT') throw error
    throw new Finding(target, input, new Error('it does not end'))
  }
}

export function failure (target: Target, input: Uint8Array, guard = guarded): Error | undefined {
  try {
    target.check(input, guard)
  } catch (error) {
    return error as Error
  }
}

/** The smallest input that fast-check finds on the way down, and how it fails. */
function shrink (target: Target, input: Uint8Array, error: Error): [Uint8Array, Error] {
  const arbitrary = fc.uint8Array({ maxLength: input.length, size: 'max' })
  // 10,000 tries are a second or two.
  for (let tries = 10_000; tries > 0;) {
    let smaller = false
    for (const { value } of arbitrary.shrink(input as Uint8Array<ArrayBuffer>, undefined)) {
      if (tries-- === 0) break
      const next = failure(target, value)
      if (next === undefined) continue
      [input, error, smaller] = [value, next, true]
      break
    }
    if (!smaller) break
  }
  return [input, error]
}

const edges = [0, 1, 2, 6, 7, 8, 20, 40, 127, 128, 254, 255]
const INPUT_MAX = 2048

/** A copy with one to three changes, of which some come from another input. */
function mutate (target: Target, input: Uint8Array, other: Uint8Array, random: (below: number) => number): Uint8Array {
  if (target.mutate !== undefined) return target.mutate(input, random)
  let bytes = input
  for (let changes = 1 + random(3); changes > 0; changes--) bytes = change(target, bytes, other, random)
  return bytes.subarray(0, INPUT_MAX)
}

function change ({ tokens = [] }: Target, bytes: Uint8Array, other: Uint8Array, random: (below: number) => number): Uint8Array {
  const at = random(bytes.length + 1)
  const replace = (length: number, by: Uint8Array) => {
    const rest = bytes.subarray(at + length)
    const changed = new Uint8Array(at + by.length + rest.length)
    changed.set(bytes.subarray(0, at))
    changed.set(by, at)
    changed.set(rest, at + by.length)
    return changed
  }
  const token = () => tokens[random(tokens.length)] ?? Uint8Array.of(random(256))
  switch (random(9)) {
    case 0: return replace(1, Uint8Array.of((bytes[at] ?? 0) ^ 1 << random(8)))
    case 1: return replace(1, Uint8Array.of(random(256)))
    case 2: return replace(1, Uint8Array.of(edges[random(edges.length)] as number))
    case 3: return replace(1, Uint8Array.of((bytes[at] ?? 0) + (random(2) === 0 ? 1 : -1)))
    case 4: return replace(1 + random(8), new Uint8Array(0))
    case 5: return replace(0, token())
    case 6: {
      const by = token()
      return replace(by.length, by)
    }
    case 7: return bytes.subarray(0, at)
    default: {
      const from = random(other.length + 1)
      return replace(random(8), other.subarray(from, from + random(24)))
    }
  }
}

/** Xorshift, of 32 bits: whole numbers from 0, below what is asked for. */
function generator (seed: number): (below: number) => number {
  let state = seed | 0 || 1
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}
