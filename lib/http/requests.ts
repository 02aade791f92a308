import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { RealAddress } from '../../types'
import type { Judge } from '../trust/judge'
import type { Ruling } from '../trust/table'
import { isChecked } from '../trust/checked'
import type { Observer } from './observer'

// A request keeps what it began with, also when the list is swapped: the ruling on its connection, and the answer once
// that is asked for.
const kRuling = Symbol('fastify-real-ip.ruling')
const kAnswer = Symbol('fastify-real-ip.answer')
type Request = FastifyRequest & { [kRuling]?: Ruling, [kAnswer]?: RealAddress }

/** What requests of one application are answered. */
export class Requests {
  readonly #observer: Observer
  readonly #judge: Judge

  constructor (observer: Observer, judge: Judge) {
    this.#observer = observer
    this.#judge = judge
  }

  /** Lets no request of a scope begin whose connection is not allowed. */
  guard (scope: FastifyInstance): void {
    if (!this.#judge.canRefuse) return
    scope.addHook('onRequest', (request: Request, reply: FastifyReply, next: () => void) => {
      const evidence = this.#observer.examineRequest(request.raw)
      if (isChecked(evidence)) {
        const ruling = this.#judge.decide(evidence)
        if (ruling === undefined) {
          reply.hijack()
          this.#observer.close(request.raw)
          return
        }
        request[kRuling] = ruling
      }
      next()
    })
  }

  answer (request: Request): RealAddress {
    return request[kAnswer] ??= this.#observer.answer(request.raw, this.#observer.examineRequest(request.raw), request[kRuling])
  }

  /** The address of that answer, without making one for what no policy judges. */
  address (request: Request): string | undefined {
    const address = this.#observer.ofRequest(request.raw)?.address
    return address ?? this.answer(request).address
  }

  /** The address of a raw request's client. */
  addressOfRaw (raw: FastifyRequest['raw']): string | undefined {
    return this.#observer.answer(raw, this.#observer.examineRequest(raw)).address
  }

  /** The answer of a request that has begun; undefined for anything else. */
  kept (connection: object): RealAddress | undefined {
    const request = connection as Request
    return request[kRuling] === undefined && request[kAnswer] === undefined ? undefined : this.answer(request)
  }
}
