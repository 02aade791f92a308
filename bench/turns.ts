import type { Server, Socket } from 'node:net'
import { forthAndBack, median } from './statistics'

/** `prepared`: the connection's objects, created before the clock starts. */
export type Thing<Prepared> = (socket: Socket, prepared: Prepared) => void

/** The functions to time; `nothing` is the cost of the clock. */
export type Things<Name extends string, Prepared> = Readonly<Record<Name | 'nothing', Thing<Prepared>>>

/**
 * Times one variant in some 'connection' events of a server, another in the next, before all other listeners. Returns a
 * function that gives the median of each since its last call, in microseconds, minus the median of `nothing`.
 */
export function takeTurns<Name extends string, Prepared> (
  server: Server, things: Things<Name, Prepared>, inARow: number, prepare: (socket: Socket) => Prepared,
  done: (thing: Thing<Prepared>, socket: Socket) => void = () => {}
): () => Record<Name | 'nothing', number> {
  const names = Object.keys(things) as Array<keyof typeof things>
  let times = names.map((): number[] => [])
  let turns: number[] = []

  server.prependListener('connection', (socket) => {
    if (turns.length === 0) turns = forthAndBack([...names.keys()]).flatMap((turn) => Array(inARow).fill(turn))
    const turn = turns.pop() as number
    const thing = things[names[turn] as keyof typeof things]
    const prepared = prepare(socket)
    const before = performance.now()
    thing(socket, prepared)
    const after = performance.now()
    times[turn]?.push((after - before) * 1000)
    done(thing, socket)
  })

  return () => {
    const medians = times.map(median)
    const nothing = medians[names.indexOf('nothing')] as number
    times = names.map(() => [])
    return Object.fromEntries(names.map((name, i) =>
      [name, name === 'nothing' ? nothing : medians[i] as number - nothing])) as Record<keyof typeof things, number>
  }
}
