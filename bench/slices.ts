import type { Child } from './child'
import { forthAndBack } from './statistics'

/** A server that takes part, and the client that keeps it busy. */
export interface Contestant {
  readonly name: string
  readonly server: Child
  readonly client: Child
  readonly target: object
}

// What makes one of two servers that do the same slower than the other, for good. V8 sizes its young generation by what
// survived at some moment, and one collects ten times as often: all have it at its full size from the start. And where
// a server idles for 8 seconds before its first request, V8 collects what process.nextTick() had learned of its
// objects.
export const EVEN_TERMS = ['--min-semi-space-size=16', '--no-memory-reducer']

/** CPU of each server per request, in microseconds: a value for each pair. */
export type Costs = Record<string, number[]>

interface Work {
  /** what the clients are asked */
  readonly question: string
  /** requests before anything counts; warm is what no longer gets faster */
  readonly warmUp: number
  /** requests; short, because a machine that is shared changes its speed within a second */
  readonly slice: number
  /** slices there and back that make a pair */
  readonly rounds: number
}

/** All contestants do the same work, slice by slice, forth and back. */
export async function measureCosts (
  contestants: readonly Contestant[], { question, warmUp, slice, rounds }: Work, pairs: number
): Promise<Costs> {
  const costs: Costs = Object.fromEntries(contestants.map(({ name }) => [name, Array(pairs).fill(0)]))
  for (const { client, target } of contestants) await client.ask(question, { ...target, count: warmUp })
  for (let round = 0; round < pairs * rounds; round++) {
    const pair = Math.floor(round / rounds)
    for (const { name, server, client, target } of forthAndBack(contestants)) {
      const before = await server.ask<number>('cpu')
      await client.ask(question, { ...target, count: slice })
      const values = costs[name] as number[]
      values[pair] = values[pair] as number + (await server.ask<number>('cpu') - before) / (2 * slice * rounds)
    }
  }
  return costs
}
