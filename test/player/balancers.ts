import { nop, OPTIONS_MAX, type Option } from './tcp-options'
import type { Handshake } from './player'

/** What a FullNAT balancer does with a client's segments on their way to the server. */
export interface Balancer {
  /** Before all other options, or after them. */
  readonly position: 'first' | 'last'
  readonly stampsSyn: boolean
  readonly stampsData: 'always' | 'until-answered' | 'never'
}

// The last segment of the handshake is stamped by all of them: kernel modules read no other.
export const balancers = {
  /** Alibaba's LVS, v1 to v3. */
  lvs: { position: 'first', stampsSyn: true, stampsData: 'until-answered' },
  /** DPVS before 1.9.6. */
  dpvsBefore196: { position: 'first', stampsSyn: true, stampsData: 'always' },
  /** DPVS since 1.9.6, whose SYN is the client's own. */
  dpvs: { position: 'first', stampsSyn: false, stampsData: 'always' },
  /** One that writes its option after all others, as eBPF programs do. */
  appending: { position: 'last', stampsSyn: true, stampsData: 'never' }
} as const satisfies Record<string, Balancer>

/** A client's options as they leave the balancer: without room for its own it forwards them as they came. */
export function stamp (options: readonly Option[], toa: Option, position: Balancer['position']): Option[] {
  const padded = [...options]
  while (lengthOf(padded) % 4 !== 0) padded.push(Uint8Array.of(0))
  if (lengthOf(padded) + toa.length > OPTIONS_MAX) return [...options]
  return position === 'first' ? [toa, ...options] : [...padded, toa]
}

/** A handshake through this balancer, for `connect()`; clients vary by its `client` options. */
export function through (balancer: Balancer, toa: Option): Required<Pick<Handshake, 'syn' | 'ack' | 'data'>> {
  const stamped = (options: readonly Option[]) => stamp(options, toa, balancer.position)
  return {
    syn: { options: balancer.stampsSyn ? stamped : undefined },
    ack: { options: stamped },
    data: {
      options: (own, answered) =>
        balancer.stampsData === 'always' || (balancer.stampsData === 'until-answered' && !answered) ? stamped(own) : own
    }
  }
}

/** Where on its own SYN a client may put a forged TOA: what it then writes, for a `Handshake`'s `client`. */
export const forgeries = {
  first: (forged, own) => [forged, ...own],
  last: (forged, own) => [...own, forged],
  /** So that no balancer finds room to stamp. */
  'first, and no room left': (forged, own) => fill([forged, ...own]),
  'last, and no room left': (forged, own) => [...fill(own, OPTIONS_MAX - forged.length), forged],
  /** With an End of Option List after it, which hides what a balancer appends. */
  'before the end of the list': (forged, own) => [...own, forged, ...Array.from({ length: 4 }, () => Uint8Array.of(0))]
} as const satisfies Record<string, (forged: Option, own: readonly Option[]) => Option[]>

/** The same options, with as many NOPs behind them as there is room for. */
export function fill (options: readonly Option[], length = OPTIONS_MAX): Option[] {
  const filled = [...options]
  while (lengthOf(filled) < length) filled.push(nop)
  return filled
}

function lengthOf (options: readonly Option[]): number {
  return options.reduce((length, { length: more }) => length + more, 0)
}
