import { start, type Child } from './child'
import type { Row } from './report'
import type { Figure } from './figure'
import { estimate, median, ratios } from './statistics'

const SESSIONS = 3

/** The times of loop-server.js by name: nanoseconds per call, a value for each slice. */
export type Slices = Readonly<Record<string, readonly number[]>>

interface Judged {
  readonly name: string
  readonly thing: string
  readonly over: string
  /** The same as `over`, again */
  readonly control: string
  readonly target?: number
}

const RANGES = 'an address asked of a list of 1,000 IPv4 and 1,000 IPv6 ranges ÷ one getpeername'

export const ranges = figure('ranges', RANGES, [
  { name: 'IPv4', thing: 'IPv4', over: 'getpeername', control: 'getpeername again', target: 1 },
  { name: 'IPv6', thing: 'IPv6', over: 'getpeername', control: 'getpeername again', target: 1 }
])

const oneHop = ['X-Forwarded-For', 'X-Real-IP', 'CloudFront-Viewer-Address', 'Forwarded']
const FORWARDED = 'the client of a forwarding header ÷ @fastify/proxy-addr on X-Forwarded-For of as many hops'

export const forwarded = figure('forwarded', FORWARDED,
  ['IPv4', 'IPv6'].flatMap((family) => ['three hops', ...oneHop].map((header) => {
    const over = `${family} proxy-addr${header === 'three hops' ? ', three hops' : ''}`
    const name = header === 'three hops' ? 'X-Forwarded-For of three hops, two of them trusted' : header
    return { name: `${family}: ${name}`, thing: `${family} ${header}`, over, control: `${over} again`, target: 1.2 }
  })))

// The cost of several registrations of the plugin in one process is not measured.
export const log = figure('log', "Fastify's request line with another serializer ÷ with Fastify's own", [
  {
    name: 'realIp and realPort in place of remoteAddress and remotePort',
    thing: 'replaced',
    over: 'default',
    control: 'default again',
    target: 1
  },
  { name: 'withRealIp()', thing: 'withRealIp', over: 'default', control: 'default again' }
], { apart: true })

/** Times functions in hot loops, slice by slice, in fresh processes: all in each process, or one. */
function figure (name: string, title: string, judged: readonly Judged[], { apart = false } = {}): Figure {
  return {
    name,
    title,
    async measure ({ sessions: count = SESSIONS, cores, progress }) {
      const measure = async (rows: readonly Judged[], args: readonly string[]): Promise<Row[]> => {
        const sessions: Slices[] = []
        for (let session = 0; session < count; session++) {
          progress(`${args.join(', ')}, ${session + 1} of ${count} sessions`)
          let child: Child | undefined
          try {
            child = await start('loop-server', [...args], { core: cores?.server })
            const measured = await child.ask<Slices | string>('measure')
            if (typeof measured === 'string') return rows.map(({ name }) => ({ name, notShown: measured }))
            sessions.push(measured)
          } finally {
            await child?.stop()
          }
        }
        return rows.map((row) => toRow(row, sessions))
      }
      if (!apart) return await measure(judged, [name])
      const rows: Row[] = []
      for (const row of judged) rows.push(...await measure([row], [name, row.thing]))
      return rows
    }
  }
}

function toRow ({ name, thing, over, control, target }: Judged, sessions: readonly Slices[]): Row {
  const of = (what: string, slices: Slices) => slices[what] as number[]
  const ratio = (what: string) =>
    estimate(sessions.map((slices) => median(ratios(of(what, slices), of(over, slices)))))
  const nanoseconds = (what: string) => median(sessions.map((slices) => median(of(what, slices))))
  return {
    name,
    value: ratio(thing),
    control: ratio(control),
    ...(target !== undefined && { target }),
    absolute: { nanoseconds: nanoseconds(thing), overNanoseconds: nanoseconds(over) }
  }
}
