import type { ToaFormat } from '../../types'
import { hasPayload, tcpOptionsEnd } from '../kernel/tcp-header'
import type { Syn } from '../kernel/saved-syn'
import type { Endpoint } from '../kernel/sockaddr'
import { findToa } from './toa-option'
import type { Source } from './source'

/** TOA of the SYN that the kernel saved (tcp(7) TCP_SAVED_SYN, Linux 4.3); needs no module. */
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
