import t, { type Test } from 'tap'
import { labUnavailable, openLab, type Lab } from './lab'

/**
 * Runs tests with this process in a lab's server cgroup. Where there is no lab to be had they are skipped; unless
 * FASTIFY_REAL_IP_LAB is `required`: then that is a failure.
 */
export function inLab (name: string, tests: (t: Test, lab: Lab) => Promise<void>): void {
  const missing = labUnavailable()
  if (missing !== undefined && process.env.FASTIFY_REAL_IP_LAB !== 'required') {
    t.test(name, { skip: missing }, () => {})
    return
  }
  t.setTimeout(300_000)
  t.test(name, { timeout: 120_000 }, async (t) => {
    const lab = await openLab()
    t.teardown(() => lab.close())
    lab.enterServer()
    await tests(t, lab)
  })
}
