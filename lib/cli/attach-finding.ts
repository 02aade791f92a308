import { kernelBefore } from '../attach/explain'
import type { Machine } from './machine'
import { bad, good, notApplicable, unknown, type Verdict } from './verdict'

const ATTACH = 'sudo fastify-real-ip attach --cgroup CGROUP --trusted-peers BALANCERS'

/** The command that makes 1348 answer; `undefined` before Linux 5.10. */
export function attachCommand (machine: Machine): string | undefined {
  if (machine.platform !== 'linux' || kernelBefore(machine.release, 5, 10)) return undefined
  return isContainer(machine) ? `on the host: ${ATTACH}` : ATTACH
}

/** Containers on the host's network have their own processes. */
export const isContainer = ({ hostNetwork, hostProcesses }: Machine): boolean =>
  hostNetwork === false || hostProcesses === false

/** Whether `attach` serves a cgroup of this process. */
export function judgeAttach (machine: Machine, works: boolean): Verdict {
  const { attachments, cgroups: [innermost], cgroups } = machine
  if (machine.platform !== 'linux') return notApplicable('cgroups and eBPF exist only on Linux')
  const command = attachCommand(machine)
  if (command === undefined) return notApplicable(`${machine.release}: attach needs Linux 5.10 or later`)
  if (innermost === undefined) {
    return unknown('the cgroup v2 of this process cannot be read',
      'mount /proc and cgroup v2 (sudo mount -t cgroup2 none /sys/fs/cgroup), and run doctor again')
  }
  const here = `this process is in the cgroup ${innermost.path}; a service may be in another (/proc/PID/cgroup)`
  if (typeof attachments === 'string') {
    return unknown(`${here}. The attachments cannot be read: ${attachments}`,
      `run doctor as root${isContainer(machine) ? ', on the host' : ''}`)
  }
  const own = attachments.filter(({ id }) => cgroups.some((cgroup) => cgroup.id === id))
  const found = own.find(({ state }) => state === 'attached') ?? own[0]
  if (found === undefined) {
    const not = `not attached: ${here}`
    return works ? notApplicable(not) : bad(not, command)
  }
  const { path } = cgroups.find(({ id }) => id === found.id) as { path: string }
  if (found.state === 'attached') return good(`attached to ${path}: ${here}`)
  return bad(`${found.state} at ${path}: ${here}`, ATTACH.replace('CGROUP', path))
}
