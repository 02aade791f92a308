import { networkInterfaces } from 'node:os'

/**
 * Servers listen on loopback. Clients use another address of this machine, if there is one: no client behind a balancer
 * has a loopback address, for which the plugin makes an additional check.
 */
export interface Family {
  readonly family: 'IPv4' | 'IPv6'
  readonly host: string
  readonly from: string | undefined
  /** what the kernel lab makes its addresses from */
  readonly derive: 'v4' | 'v6'
}

export const IPv4: Family = { family: 'IPv4', host: '127.0.0.1', from: ownAddress('IPv4'), derive: 'v4' }
export const IPv6: Family = { family: 'IPv6', host: '::1', from: ownAddress('IPv6'), derive: 'v6' }

function ownAddress (family: 'IPv4' | 'IPv6'): string | undefined {
  const own = Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? [])
  // A link-local address is none without its zone.
  return own.find((a) => a.family === family && !a.internal && !a.address.startsWith('fe80:'))?.address
}
