/** A median with its 95 % interval. */
export interface Estimate {
  readonly median: number
  readonly low: number
  readonly high: number
  readonly samples: number
}

const RESAMPLED = 2000

/** The median of `values`, one for each session of fresh processes, with a bootstrap over them. */
export function estimate (values: readonly number[]): Estimate {
  const medians = Array.from({ length: RESAMPLED }, () => median(values.map(() => oneOf(values))))
  medians.sort((a, b) => a - b)
  return {
    median: median(values),
    low: medians[RESAMPLED * 0.025] as number,
    high: medians[RESAMPLED * 0.975 - 1] as number,
    samples: values.length
  }
}

const oneOf = <T>(items: readonly T[]) => items[Math.floor(Math.random() * items.length)] as T

export function median (values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] as number
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] as number) + upper) / 2
}

/** Pairwise. */
export function ratios (over: readonly number[], under: readonly number[]): number[] {
  return over.map((value, i) => value / (under[i] as number))
}

/** The nearest value of which a part of `values`, of 0 to 1, lies below. */
export function quantile (values: readonly number[], part: number): number {
  return [...values].sort((a, b) => a - b)[Math.round(part * (values.length - 1))] as number
}

/** In random order. */
export function shuffled<T> (items: readonly T[]): T[] {
  const order = [...items]
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1))
    const swapped = order[i] as T
    order[i] = order[j] as T
    order[j] = swapped
  }
  return order
}

/** Forth and back in random order: A/B/B/A for any number of elements. */
export function forthAndBack<T> (items: readonly T[]): T[] {
  const order = shuffled(items)
  return [...order, ...order.reverse()]
}
