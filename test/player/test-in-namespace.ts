import t from 'tap'
import { insideNamespace, namespaceCommand, namespaceUnavailable } from './namespace'

/**
 * Runs a file's tests in a network namespace of their own. Where there is none to be had they are skipped; unless
 * FASTIFY_REAL_IP_LAB is `required`: then that is a failure.
 */
export function testInNamespace (file: string, tests: () => void): void {
  if (insideNamespace()) {
    tests()
    return
  }
  const missing = namespaceUnavailable()
  if (missing === undefined) {
    const [command, ...args] = namespaceCommand(file)
    void t.spawn(command, args, { diagnostic: false }, 'in a network namespace')
  } else if (process.env.FASTIFY_REAL_IP_LAB === 'required') {
    t.fail(missing)
  } else {
    t.plan(0, missing)
  }
}
