import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { RealAddress } from '../../types'
import type { Judge } from '../trust/judge'
import type { Ruling } from '../trust/table'
import { isChecked } from '../trust/checked'
import type { Claim, Fallback } from '../trust/claim'
import { answersClaim } from '../trust/verdict'
import type { Observer } from './observer'

// A request keeps the ruling on its connection and its answer, even if the list is replaced meanwhile.
const kRuling = Symbol('fastify-real-ip.ruling')
const kAnswer = Symbol('fastify-real-ip.answer')
type Request = FastifyRequest & { [kRuling]?: Ruling, [kAnswer]?: RealAddress }

/** Answers the requests of one application. */
export class Requests {
  readonly #observer: Observer
  readonly #judge: Judge

  constructor (observer: Observer, judge: Judge) {
    this.#observer = observer
    this.#judge = judge
  }

  /** Rejects requests of a scope whose connection is not allowed. */
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
    return request[kAnswer] ??=
      this.#observer.answer(request.raw, this.#observer.examineRequest(request.raw), request[kRuling])
  }

  /**
   * The address of that answer, which is not created for most requests: with a list, creating it takes 2 % of a
   * connection with one request.
   */
  address (request: Request): string | undefined {
    const claim = this.#claimOf(request)
    return claim === undefined ? this.answer(request).address : claim.address
  }

  /** The claim whose address is the answer's; `undefined` if another address can be. */
  #claimOf (request: Request): Claim | Fallback | undefined {
    if (this.#observer.readHops !== undefined || request[kAnswer] !== undefined) return undefined
    const evidence = this.#observer.ofRequest(request.raw)
    if (evidence === undefined || !isChecked(evidence)) return evidence
    const ruling = request[kRuling]
    return ruling !== undefined && answersClaim(evidence, ruling) ? evidence.claim : undefined
  }

  /** The client's address of a raw request. */
  addressOfRaw (raw: FastifyRequest['raw']): string | undefined {
    return this.#observer.answer(raw, this.#observer.examineRequest(raw)).address
  }

  /** The answer of a request that has begun; `undefined` for anything else. */
  kept (connection: object): RealAddress | undefined {
    const request = connection as Request
    return request[kRuling] === undefined && request[kAnswer] === undefined ? undefined : this.answer(request)
  }
}
