import { type Child, withChildren } from './child'
import type { Row } from './report'
import type { Cores, Figure } from './figure'
import { estimate, forthAndBack, median, ratios, shuffled } from './statistics'
import { otherResolvers, plugins } from './variants'

const SESSIONS = 12
const WARM_UP = 30
const SLICES = 60

// The others run twice each: the ratio of both is the control.
const contestants = [...plugins, ...otherResolvers, ...otherResolvers].map((name, i) =>
  ({ name, key: i < plugins.length + otherResolvers.length ? name : `${name}, again` }))

type Slices = Record<string, number[]>

/** A server's work for a request's address only ÷ the work of another resolver. */
export const resolve: Figure = {
  name: 'resolve',
  title: "Fastify's object for a request, 'onRequest' hooks, and the address read ÷ the same with another resolver",
  async measure ({ sessions: count = SESSIONS, cores, progress }) {
    const sessions: Slices[] = []
    for (let session = 0; session < count; session++) {
      progress(`${session + 1} of ${count} sessions`)
      sessions.push(await runSession(cores))
    }
    const of = (key: string, slices: Slices) => slices[key] as number[]
    const ratio = (over: string, under: string) =>
      estimate(sessions.map((slices) => median(ratios(of(over, slices), of(under, slices)))))
    const nanoseconds = (key: string) => median(sessions.map((slices) => median(of(key, slices))))
    return plugins.flatMap((name) => otherResolvers.map((other): Row => ({
      name: `${name} ÷ ${other}`,
      value: ratio(name, other),
      control: ratio(`${other}, again`, other),
      target: 1,
      absolute: { nanoseconds: nanoseconds(name), overNanoseconds: nanoseconds(other) }
    })))
  }
}

/** Separate processes: V8 generates slower code if several variants share one. */
function runSession (cores: Cores | undefined): Promise<Slices> {
  return withChildren(async (fresh) => {
    const slices: Slices = {}
    const servers: Array<{ readonly key: string, readonly server: Child }> = []
    for (const { name, key } of shuffled(contestants)) {
      slices[key] = Array(SLICES).fill(0)
      servers.push({ key, server: await fresh('resolve-server', [name], { core: cores?.server }) })
    }
    for (let slice = -WARM_UP; slice < SLICES; slice++) {
      for (const { key, server } of forthAndBack(servers)) {
        const nanoseconds = await server.ask<number>('slice')
        if (slice >= 0) slices[key]![slice]! += nanoseconds / 2
      }
    }
    return slices
  })
}
