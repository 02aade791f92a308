import { type Endpoint, sameEndpoint } from '../kernel/sockaddr'
import { Course } from './course'
import type { Source } from './source'

/**
 * Asks the sources in order about one connection. Decodes the first address into `into`; `source` of the course names
 * its source, `undefined` if there is none. A source that returns the known transport peer claims nothing, and the next
 * one is asked.
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
