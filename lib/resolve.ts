import { type Claim, claimOf, Course } from './evidence'
import { createEndpoint, type Endpoint, sameEndpoint } from './sockaddr'
import type { Source } from './sources/source'

/**
 * Asks the sources in order about one connection; the course of the attempts where none has an answer. Where the
 * transport peer is known, a source that gives just that has said nothing of a client, and the next is asked.
 */
export type Resolve = (fd: number, peer: Endpoint | undefined) => Claim | Course

export function createResolve (sources: ReadonlyArray<Source>): Resolve {
  const start = new Course(sources.map((source) => source.name))
  const last = sources.at(-1)
  const endpoint = createEndpoint()

  return (fd, peer) => {
    let course = start
    for (const source of sources) {
      let reason = source.read(fd, endpoint)
      if (reason === undefined) {
        if (peer === undefined || source === last || !sameEndpoint(endpoint, peer)) return claimOf(endpoint, course)
        reason = 'transport-peer'
      }
      course = course.after(reason)
    }
    return peer === undefined ? course : claimOf(peer, course)
  }
}
