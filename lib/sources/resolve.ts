import { type Endpoint, sameEndpoint } from '../kernel/sockaddr'
import { Course } from './course'
import type { Source } from './source'

/**
 * Asks the sources in order about one connection. The address of the first that has one is then in `into`, and the course
 * says which source that was: none where its `source` is undefined. Where the transport peer is known, a source that
 * gives just that has said nothing of a client, and the next is asked.
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
