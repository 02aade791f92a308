import type { Checker, CheckResult, CheckStatus } from '@stryker-mutator/api/check' with { 'resolution-mode': 'import' }

const each = Number(process.env.FASTIFY_REAL_IP_EACH_MUTANT)

/** Passes every nth mutant; Stryker does not run the others. */
class Sample implements Checker {
  async init (): Promise<void> {}

  async check (mutants: Parameters<Checker['check']>[0]): Promise<Record<string, CheckResult>> {
    return Object.fromEntries(mutants.map(({ id }) => [id, Number(id) % each === 0
      ? { status: 'passed' as CheckStatus.Passed }
      : { status: 'compileError' as CheckStatus.CompileError, reason: 'not in the sample' }]))
  }
}

export const strykerPlugins = [{ kind: 'Checker', name: 'sample', injectableClass: Sample }]
