import { sessions } from './connections'
import { withVtoa, type Kernel } from './kernel'
import { IPv4, IPv6 } from './network'
import type { Row } from './report'
import type { Figure } from './figure'
import type { Times } from './read-server'
import { estimate, median } from './statistics'

// In slices, as a server handles one connection after another; short ones, as in slices.ts.
const IN_A_ROW = 20
const SESSIONS = 5

/** The plugin's work in a real 'connection' event ÷ Node's own first `socket.remoteAddress` in another one. */
export const read: Figure = {
  name: 'read',
  title: "reading a connection in its 'connection' event ÷ the first socket.remoteAddress there",
  async measure ({ sessions: count = SESSIONS, cores, progress }) {
    const rows: Row[] = []
    for (const network of [IPv4, IPv6]) {
      const { family, derive } = network
      const run = (kernel: Kernel) =>
        sessions<Times>('read-server', network, IN_A_ROW, count, kernel, cores, (done) => progress(`${family}, ${done}`))
      const skipped = await run({})
      const answering = await withVtoa(derive, run)
      const withText = `${family}, 1348 answering, with text`
      rows.push(
        ...toRows(`${family}, 1348 skipped`, 'getpeername', 0.95, skipped),
        ...toRows(`${family}, 1348 answering`, 'vtoa', 1, answering),
        withoutStandIn(`${withText}, the stand-in's part taken off`, 'readWithText', skipped, answering),
        ...(network === IPv4
          ? [withoutStandIn(`${withText}, the least that a WeakMap takes, the stand-in's part taken off`, 'least', skipped, answering)]
          : [])
      )
    }
    return rows
  }
}

function toRows (name: string, source: string, target: number, measured: Times[] | string): Row[] {
  const withText = `${name}, with text`
  const withoutText = `${name}, without text`
  const problem = typeof measured === 'string' ? measured : wrongSource(measured, source)
  if (problem !== undefined || typeof measured === 'string') {
    return [withText, withoutText].map((name) => ({ name, notShown: problem as string }))
  }
  const of = (thing: 'read' | 'readWithText' | 'least' | 'call') =>
    estimate(measured.map((times) => times[thing] / remoteAddress(times)))
  const control = estimate(measured.map((times) => times.control / times.remoteAddress))
  const absolute = { remoteAddressMicroseconds: median(measured.map(remoteAddress)) }
  return [
    { name: withText, value: of('readWithText'), control, target, absolute },
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
    return (times[thing] - times.call + bare.call) / remoteAddress(bare)
  }))
  const standIn = (answering as Times[]).map(({ call }, i) => call - (without[i] as Times).call)
  return { name, value, absolute: { standInMicroseconds: median(standIn) } }
}

function wrongSource (measured: Times[], source: string): string | undefined {
  const other = measured.find((times) => times.source !== source)
  return other && `the answer came from '${other.source}', not from '${source}'`
}
