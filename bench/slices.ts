import type { Child } from './child'
import { forthAndBack } from './statistics'

/** A server in a comparison, with the client that keeps it busy. */
export interface Contestant {
  readonly name: string
  readonly server: Child
  readonly client: Child
  readonly target: object
}

/** CPU of each server per request, in microseconds. */
export type Costs = Record<string, number>

interface Work {
  /** The request that clients send */
  readonly question: string
  /** Requests before the first slice; times no longer improve then */
  readonly warmUp: number
  /** Requests per slice; short, because the speed of a shared machine changes within a second */
  readonly slice: number
  /** Slices forth and back */
  readonly rounds: number
}

/** All servers do the same work, slice by slice, forth and back. */
export async function measureCosts (
  contestants: readonly Contestant[], { question, warmUp, slice, rounds }: Work
): Promise<Costs> {
  const costs: Costs = Object.fromEntries(contestants.map(({ name }) => [name, 0]))
  for (const { client, target } of contestants) await client.ask(question, { ...target, count: warmUp })
  for (let round = 0; round < rounds; round++) {
    for (const { name, server, client, target } of forthAndBack(contestants)) {
      const before = await server.ask<number>('cpu')
      await client.ask(question, { ...target, count: slice })
      costs[name]! += (await server.ask<number>('cpu') - before) / (2 * slice * rounds)
    }
  }
  return costs
}
