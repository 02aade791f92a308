import { sessions } from './connections'
import { withVtoa, type Kernel } from './kernel'
import { IPv4, IPv6 } from './network'
import type { Row } from './report'
import type { Figure } from './run'
import type { Times } from './read-server'
import { estimate, median } from './statistics'

// Interleaved, so that what one thing leaves warm is the next one's too; and each as warm as it can get, as in a server
// that does nothing else with its connections.
const ORDERS = [
  { inARow: 1, order: 'interleaved', judged: true },
  { inARow: 8, order: '8 in a row', judged: false }
]

/** The plugin's work in a real 'connection' event ÷ Node's own first `socket.remoteAddress` in another. */
export const read: Figure = {
  name: 'read',
  title: "reading a connection in its 'connection' event ÷ the first socket.remoteAddress there",
  async measure ({ cores, progress }) {
    const rows: Row[] = []
    for (const network of [IPv4, IPv6]) {
      const { family, derive } = network
      for (const { inARow, order, judged } of ORDERS) {
        const run = (kernel: Kernel) =>
          sessions<Times>('read-server', network, inARow, kernel, cores, (done) => progress(`${family}, ${order}, ${done}`))
        const target = (ratio: number) => judged ? ratio : undefined
        rows.push(...toRows(`${family}, 1348 skipped, ${order}`, 'getpeername', target(0.8), await run({})))
        rows.push(...toRows(`${family}, 1348 answering, ${order}`, 'vtoa', target(1), await withVtoa(derive, run)))
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
  const of = (thing: 'control' | 'read' | 'readWithText') =>
    estimate(measured.map((times) => [times[thing] / times.remoteAddress]))
  const absolute = { remoteAddressMicroseconds: median(measured.map((times) => times.remoteAddress)) }
  return [
    { name: withText, value: of('readWithText'), control: of('control'), ...(target !== undefined && { target }), absolute },
    { name: withoutText, value: of('read'), control: of('control'), absolute }
  ]
}

function wrongSource (measured: Times[], source: string): string | undefined {
  const other = measured.find((times) => times.source !== source)
  return other && `the answer came from '${other.source}', not from '${source}'`
}
