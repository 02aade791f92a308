import { type Claim, Course, IPv4Claim, IPv6Claim } from './evidence'
import type { KernelSource } from '../types'
import type { Libc } from './libc'
import { createEndpoint } from './sockaddr'
import { createGetpeername } from './sources/getpeername'
import type { Source } from './sources/source'
import { createVtoa } from './sources/vtoa'

const create: Record<KernelSource, (libc: Libc) => Source> = {
  vtoa: createVtoa,
  getpeername: createGetpeername
}

export function createSources (names: ReadonlyArray<KernelSource>, libc: Libc): ReadonlyArray<Source> {
  return names.map((name) => create[name](libc))
}

/** Asks the sources in order about one connection; the course of the attempts where none has an answer. */
export type Resolve = (fd: number) => Claim | Course

export function createResolve (sources: ReadonlyArray<Source>): Resolve {
  const start = new Course(sources.map((source) => source.name))
  const endpoint = createEndpoint()

  return (fd) => {
    let course = start
    for (const source of sources) {
      const reason = source.read(fd, endpoint)
      if (reason === undefined) {
        return endpoint.family === 'IPv4' ? new IPv4Claim(course, endpoint) : new IPv6Claim(course, endpoint)
      }
      course = course.after(reason)
    }
    return course
  }
}
