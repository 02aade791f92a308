import type { ToaFormat } from '../../types'

/** What a balancer writes on the SYN. */
export interface Toa {
  readonly formats: ReadonlyArray<ToaFormat>
  /** Why it writes nothing on the SYN; `undefined` if it does. */
  readonly silentOnSyn?: string
}

/** The least size of an option with TOA in bytes: both header bytes, the port and the address. */
export const leastLength = { IPv4: 8, IPv6: 20 } as const

const first = (kind: number, length: number, family: 'IPv4' | 'IPv6'): ToaFormat =>
  ({ kind, length, family, position: 'first' })

export const toaPresets: Readonly<Record<'alibaba' | 'ucloud' | 'tencent' | 'dpvs', Toa>> = {
  alibaba: { formats: [first(254, 8, 'IPv4'), first(253, 20, 'IPv6')] },
  ucloud: { formats: [first(200, 8, 'IPv4')] },
  tencent: { formats: [first(200, 8, 'IPv4')] },
  dpvs: {
    formats: [first(254, 8, 'IPv4'), first(254, 20, 'IPv6')],
    silentOnSyn: 'since 1.9.6 DPVS writes no TOA on the SYN, and forwards TOA that a client forged there. Load its ' +
      "toa.ko and use sources: ['getpeername'], or run fastify-real-ip attach on Linux 5.10 or later"
  }
}
