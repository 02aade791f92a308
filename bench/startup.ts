import { start } from './child'
import type { Figure, Run } from './figure'
import type { Row } from './report'
import { estimate, forthAndBack, median, ratios } from './statistics'

const SESSIONS = 10
const TARGET = 1.15
const judged = ['fastify-real-ip', 'fastify-real-ip, trustedPeers']
const names = ['plain', 'control', ...judged]

export interface Startup {
  readonly milliseconds: number
  readonly cpuMilliseconds: number
}

/** The first `require` to the first answer ÷ plain Fastify: a fresh process each time, forth and back, twice. */
export const startup: Figure = {
  name: 'startup',
  title: 'from the first require to the first request answered ÷ plain Fastify',
  async measure ({ sessions = SESSIONS, cores, progress }: Run): Promise<Row[]> {
    const times: Record<string, Startup[]> = Object.fromEntries(names.map((name) => [name, []]))
    for (let session = 0; session < sessions; session++) {
      progress(`${session} of ${sessions} sessions`)
      const inSession: Record<string, Startup[]> = {}
      // Four of each, because a single disturbance is large.
      for (const name of [...forthAndBack(names), ...forthAndBack(names)]) {
        const server = await start('startup-server', [name], { core: cores?.server })
        try {
          (inSession[name] ??= []).push(await server.ask<Startup>('startUp'))
        } finally {
          await server.stop()
        }
      }
      for (const name of names) times[name]?.push(middleOf(inSession[name] as Startup[]))
    }

    const of = (name: string, what: keyof Startup) => (times[name] as Startup[]).map((time) => time[what])
    const overPlain = (name: string, what: keyof Startup) =>
      estimate(ratios(of(name, what), of('plain', what)))
    const row = (name: string, what: keyof Startup, label: string): Row => ({
      name: `${label}: ${name}`,
      value: overPlain(name, what),
      control: overPlain('control', what),
      absolute: { milliseconds: median(of(name, what)), plainMilliseconds: median(of('plain', what)) }
    })
    return judged.flatMap((name) => [
      { ...row(name, 'milliseconds', 'elapsed'), target: TARGET },
      row(name, 'cpuMilliseconds', 'CPU')
    ])
  }
}

function middleOf (times: readonly Startup[]): Startup {
  return {
    milliseconds: median(times.map((time) => time.milliseconds)),
    cpuMilliseconds: median(times.map((time) => time.cpuMilliseconds))
  }
}
