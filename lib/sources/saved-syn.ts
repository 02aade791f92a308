import type { ToaFormat } from '../../types'
import { hasPayload, tcpOptionsEnd } from '../kernel/tcp-header'
import type { Endpoint } from '../kernel/sockaddr'
import { findToa } from './toa-option'
import type { Source } from './source'

/** The SYN of the connection at hand: the trust check reads it before any source is asked, and it can be read once. */
export interface Syn {
  readonly bytes: Uint8Array
  /** 0: there is none. */
  readonly length: number
  /** Where its TCP header stands; -1 where there is none. */
  readonly tcp: number
}

/** TOA from the SYN that the kernel saved (tcp(7) TCP_SAVED_SYN, Linux 4.3), without any module. */
export class SavedSyn implements Source {
  readonly name = 'saved-syn'
  readonly #syn: Syn
  readonly #formats: ReadonlyArray<ToaFormat>

  constructor (syn: Syn, formats: ReadonlyArray<ToaFormat>) {
    this.#syn = syn
    this.#formats = formats
  }

  read (_fd: number, into: Endpoint): string | undefined {
    const { bytes, length, tcp } = this.#syn
    if (tcp < 0) return 'no-saved-syn'
    return findToa(bytes, tcp + 20, tcpOptionsEnd(bytes, length, tcp), hasPayload(bytes, tcp), this.#formats, into)
  }

  missing (): undefined {
    return undefined
  }
}
