import type { Child } from './child'
import { forthAndBack } from './statistics'

/** A server that takes part, and the client that keeps it busy. */
export interface Contestant {
  readonly name: string
  readonly server: Child
  readonly client: Child
  readonly target: object
}

// V8 sizes its young generation by what survived at some moment, so that of two servers that do the same one collects ten
// times as often as the other, for good. All have it at its full size from the start.
export const FULL_YOUNG_GENERATION = ['--min-semi-space-size=16']

/** CPU of each server per request, in microseconds: a value for each slice there and back. */
export type Costs = Record<string, number[]>

interface Work {
  /** what the clients are asked */
  readonly question: string
  /** requests before anything counts; warm is what no longer gets faster */
  readonly warmUp: number
  /** requests */
  readonly slice: number
}

/** All contestants do the same work, slice by slice, forth and back. */
export async function measureCosts (
  contestants: readonly Contestant[], { question, warmUp, slice }: Work, pairs: number
): Promise<Costs> {
  const costs: Costs = Object.fromEntries(contestants.map(({ name }) => [name, Array(pairs).fill(0)]))
  for (const { client, target } of contestants) await client.ask(question, { ...target, count: warmUp })
  for (let pair = 0; pair < pairs; pair++) {
    for (const { name, server, client, target } of forthAndBack(contestants)) {
      const before = await server.ask<number>('cpu')
      await client.ask(question, { ...target, count: slice })
      const values = costs[name] as number[]
      values[pair] = values[pair] as number + (await server.ask<number>('cpu') - before) / (2 * slice)
    }
  }
  return costs
}
