import { sessions } from './connections'
import { withVtoa, type Kernel } from './kernel'
import { IPv4, IPv6 } from './network'
import type { Row } from './report'
import type { Figure } from './figure'
import type { Times } from './read-server'
import { estimate, median } from './statistics'

// Hot: in slices, as a server handles one connection after another. Cold: each variant after the others. Short slices,
// as in slices.ts.
const ORDERS = [
  { inARow: 20, order: 'slices of 20', count: 6, judged: true },
  { inARow: 1, order: 'one by one', count: 2, judged: false }
]

/** The plugin's work in a real 'connection' event ÷ Node's own first `socket.remoteAddress` in another one. */
export const read: Figure = {
  name: 'read',
  title: "reading a connection in its 'connection' event ÷ the first socket.remoteAddress there",
  async measure ({ cores, progress }) {
    const rows: Row[] = []
    for (const network of [IPv4, IPv6]) {
      const { family, derive } = network
      for (const { inARow, order, count, judged } of ORDERS) {
        const run = (kernel: Kernel) =>
          sessions<Times>('read-server', network, inARow, count, kernel, cores,
            (done) => progress(`${family}, ${order}, ${done}`))
        const target = (ratio: number) => judged ? ratio : undefined
        const skipped = await run({})
        const answering = await withVtoa(derive, run)
        rows.push(
          ...toRows(`${family}, 1348 skipped, ${order}`, 'getpeername', target(0.8), skipped),
          ...toRows(`${family}, 1348 answering, ${order}`, 'vtoa', target(1), answering),
          withoutStandIn(`${family}, 1348 answering, ${order}, with text, the stand-in's part taken off`, 'readWithText', skipped, answering),
          ...(network === IPv4
            ? [withoutStandIn(`${family}, 1348 answering, ${order}, with text, the least that a WeakMap takes, the stand-in's part taken off`, 'least', skipped, answering)]
            : [])
        )
      }
    }
    return rows
  }
}

function toRows (name: string, source: string, target: number | undefined, measured: Times[] | string): Row[] {
  const withText = `${name}, with text`
  const withoutText = `${name}, without text`
  const problem = typeof measured === 'string' ? measured : wrongSource(measured, source)
  if (problem !== undefined || typeof measured === 'string') {
    return [withText, withoutText].map((name) => ({ name, notShown: problem as string }))
  }
  const of = (thing: 'read' | 'readWithText' | 'least' | 'call') =>
    estimate(measured.map((times) => [times[thing] / remoteAddress(times)]))
  const control = estimate(measured.map((times) => [times.control / times.remoteAddress]))
  const absolute = { remoteAddressMicroseconds: median(measured.map(remoteAddress)) }
  return [
    { name: withText, value: of('readWithText'), control, ...(target !== undefined && { target }), absolute },
    { name: withoutText, value: of('read'), control, absolute },
    // The lower bound.
    ...(source === 'vtoa' ? [{ name: `${name}, the system call alone`, value: of('call'), control }] : []),
    ...(name.startsWith('IPv4')
      ? [{ name: `${name}, with text, the least that a WeakMap takes`, value: of('least'), control }]
      : [])
  ]
}

/** Timed twice: the control is the ratio of both, and the others are compared to their mean. */
const remoteAddress = (times: Times) => (times.remoteAddress + times.control) / 2

/**
 * The lab's stand-in for vtoa is an eBPF program, for which the kernel also copies the buffer. Its share is the time of
 * a call of 1348 with it minus the time without.
 */
function withoutStandIn (
  name: string, thing: 'readWithText' | 'least', skipped: Times[] | string, answering: Times[] | string
): Row {
  const problem = [skipped, answering].find((measured) => typeof measured === 'string')
  if (problem !== undefined) return { name, notShown: problem as string }
  const without = skipped as Times[]
  const value = estimate((answering as Times[]).map((times, i) => {
    const bare = without[i] as Times
    return [(times[thing] - times.call + bare.call) / remoteAddress(bare)]
  }))
  const standIn = (answering as Times[]).map(({ call }, i) => call - (without[i] as Times).call)
  return { name, value, absolute: { standInMicroseconds: median(standIn) } }
}

function wrongSource (measured: Times[], source: string): string | undefined {
  const other = measured.find((times) => times.source !== source)
  return other && `the answer came from '${other.source}', not from '${source}'`
}
