import { sessions } from './connections'
import { type Kernel, withStamp } from './kernel'
import { IPv4, IPv6 } from './network'
import type { Times } from './policy-server'
import type { Row } from './report'
import type { Figure } from './figure'
import { estimate, median } from './statistics'

const TARGET = 1.35
const SESSIONS = 3
// As in read.ts: a server handles one connection after another in the same way.
const IN_A_ROW = 20

/** The cost of a list of trusted peers per connection ÷ one failing 1348, both in real 'connection' events. */
export const policy: Figure = {
  name: 'policy',
  title: "what trustedPeers adds in a 'connection' event ÷ one failing getsockopt 1348 there",
  async measure ({ sessions: count = SESSIONS, cores, progress }) {
    const rows: Row[] = []
    for (const network of [IPv4, IPv6]) {
      const { family, derive } = network
      const run = (kernel: Kernel) =>
        sessions<Times>('policy-server', network, IN_A_ROW, count, kernel, cores, (done) => progress(`${family}, ${done}`))
      const bare = await run({})
      const stamped = await withStamp(derive, run)
      rows.push(
        toRow(`${family}, with the policy − without`, bare, (times) => times.policy - times.without),
        toRow(`${family}, the system call that reads the saved SYN, alone`, bare, (times) => times.call, false),
        toRow(`${family}, the same of a SYN with TOA`, stamped, (times) => times.call, false),
        toRow(`${family}, saved-syn read and walk`, found(bare, 'no-option'), (times) => times.savedSyn),
        toRow(`${family}, saved-syn read and walk, with TOA`, found(stamped, ''), (times) => times.savedSyn)
      )
    }
    return rows
  }
}

function toRow (
  name: string, measured: Times[] | string, over: (times: Times) => number, judged = true
): Row {
  const problem = typeof measured === 'string' ? measured : whyNot(measured)
  if (problem !== undefined || typeof measured === 'string') return { name, notShown: problem as string }
  return {
    name,
    value: estimate(measured.map((times) => over(times) / times.failing)),
    // The control: the difference of two equal variants plus a failing 1348, in place of the measured call.
    control: estimate(measured.map((times) =>
      (times.withoutAgain - times.without + times.failingAgain) / times.failing)),
    ...(judged && { target: TARGET }),
    absolute: {
      failingMicroseconds: median(measured.map((times) => times.failing)),
      withoutMicroseconds: median(measured.map((times) => times.without)),
      microseconds: median(measured.map(over))
    }
  }
}

function whyNot (measured: readonly Times[]): string | undefined {
  if (measured.some(({ errno }) => errno === 0)) return 'the kernel answers 1348'
  const other = measured.find(({ trust }) => trust !== 'trusted')
  return other && `the client's address is in the list, and the answer is '${other.trust}'`
}

function found (measured: Times[] | string, expected: string): Times[] | string {
  const other = typeof measured === 'string' ? undefined : measured.find(({ found }) => found !== expected)
  return other === undefined ? measured : `the SYN was to give '${expected}', and gave '${other.found}'`
}
