import { Course } from '../trust/evidence'
import { type Endpoint, sameEndpoint } from '../kernel/sockaddr'
import type { Source } from './source'

/**
 * Asks the sources in order about one connection. What the first answer says is then in `into`, and the course tells
 * whose it was: nobody's where its `source` is undefined. Where the transport peer is known, a source that gives just
 * that has said nothing of a client, and the next is asked.
 */
export type Resolve = (fd: number, into: Endpoint, peer: Endpoint | undefined) => Course

export function createResolve (sources: ReadonlyArray<Source>): Resolve {
  const start = new Course(sources.map((source) => source.name))
  const last = sources.at(-1)

  return (fd, into, peer) => {
    let course = start
    for (const source of sources) {
      let reason = source.read(fd, into)
      if (reason === undefined) {
        if (peer === undefined || source === last || !sameEndpoint(into, peer)) return course
        reason = 'transport-peer'
      }
      course = course.after(reason)
    }
    return course
  }
}
