import type { Child } from './child'
import { forthAndBack } from './statistics'

/** A server in a comparison, with the client that keeps it busy. */
export interface Contestant {
  readonly name: string
  readonly server: Child
  readonly client: Child
  readonly target: object
}

// Options against permanent differences between equal servers. V8 sizes its young generation by what survived at some
// moment, so that one server may collect ten times as often: all start with the full size. And V8 discards what it
// learned of process.nextTick() objects if a server idles for 8 seconds before its first request.
export const EVEN_TERMS = ['--min-semi-space-size=16', '--no-memory-reducer']

/** CPU of each server per request, in microseconds: a value for each pair. */
export type Costs = Record<string, number[]>

interface Work {
  /** The request that clients send */
  readonly question: string
  /** Requests before the first slice; times no longer improve then */
  readonly warmUp: number
  /** Requests per slice; short, because the speed of a shared machine changes within a second */
  readonly slice: number
  /** Slices forth and back per pair */
  readonly rounds: number
}

/** All servers do the same work, slice by slice, forth and back. */
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
