import type { Server, Socket } from 'node:net'
import { forthAndBack, median } from './statistics'

/** `prepared` is what was made of the connection before the clock started. */
export type Thing<Prepared> = (socket: Socket, prepared: Prepared) => void

/** What is timed; `nothing` is the clock's own part. */
export type Things<Name extends string, Prepared> = Readonly<Record<Name | 'nothing', Thing<Prepared>>>

/**
 * Times one thing in some of a server's 'connection' events, another in the next, before all other listeners. Gives a
 * function: the median of each since it was last asked, in microseconds, with that of `nothing` taken off all others.
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
