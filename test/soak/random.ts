/** What a seed gives: the same for the same seed and number. */
export interface Random {
  /** a whole number from 0, below `limit` */
  below (limit: number): number
  chance (probability: number): boolean
  pick<Item> (items: readonly Item[]): Item
}

/** mulberry32 */
export function createRandom (seed: number, number: number): Random {
  let state = Math.imul(seed, 0x9e3779b1) ^ Math.imul(number + 1, 0x85ebca6b)

  function next (): number {
    state = state + 0x6d2b79f5 | 0
    let mixed = Math.imul(state ^ state >>> 15, state | 1)
    mixed ^= mixed + Math.imul(mixed ^ mixed >>> 7, mixed | 61)
    return ((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32
  }

  const below = (limit: number) => Math.floor(next() * limit)
  return {
    below,
    chance: (probability) => next() < probability,
    pick: (items) => items[below(items.length)]!
  }
}
