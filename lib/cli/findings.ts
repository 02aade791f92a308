import { kernelBefore } from '../attach/explain'
import { attachCommand, isContainer, judgeAttach } from './attach-finding'
import type { Kernel, Machine } from './machine'
import { bad, good, notApplicable, unknown, type Verdict } from './verdict'

// The first kernels of Alibaba Cloud Linux 3 with which vtoa answers: the N of 5.10.134-N.
const GETPEERNAME = 15
const GETSOCKOPT = 17

export const WATCH = 'npx fastify-real-ip watch PORT'
const UPDATE_KERNEL = 'sudo yum update kernel -y && sudo reboot'
const INSTALL_VTOA = 'sudo yum install vtoa -y && sudo systemctl start vtoa'
const LOAD_TOA = "load the toa.ko of your balancer's vendor for this kernel: sudo insmod toa.ko"
const ON_LINUX = 'run the server on Linux; for development no fix is needed'
const NO_SYS = '/sys/module does not exist'
const MODULES_ELSEWHERE = 'mount /sys; or on the host: lsmod | grep toa'
const SYNCOOKIES_IN_NEED = 'sudo sysctl -w net.ipv4.tcp_syncookies=1'
const REINSTALL_KOFFI = 'rm -rf node_modules/koffi node_modules/@koromix && npm install'

/** Findings by name, in the order of output. `works`: a kernel source does. */
export function judgeAll (machine: Machine, works: boolean): Record<string, Verdict> {
  const ask = (by: (kernel: Kernel) => Verdict) => judgeAsked(machine, by)
  return {
    platform: judgePlatform(machine),
    kernel: judgeRelease(machine),
    koffi: judgeKoffi(machine),
    'module vtoa': judgeVtoa(machine, works),
    'module toa': judgeToa(machine, works),
    counters: judgeCounters(machine),
    'getsockopt 1348': ask((kernel) => judge1348(machine, kernel, works)),
    attach: judgeAttach(machine, works),
    'getsockopt 1345-1347': ask(judgeVirtualServer),
    'getsockopt 4096': ask((kernel) => answers(kernel, 4096)
      ? good(`DPVS's toa module: ${resultOf(kernel, 4096)}`)
      : notApplicable('no module answers (ENOPROTOOPT); only DPVS with NAT64 needs it')),
    TCP_SAVE_SYN: ask(judgeSaveSyn),
    sock_diag: ask(({ diag }) => diag
      ? good('finds the sender of a connection')
      : bad('does not find the sender of a connection', 'sudo modprobe -a inet_diag tcp_diag')),
    'SYN cookies': judgeSyncookies(machine),
    'Fast Open': judgeFastOpen(machine),
    namespace: judgeNamespace(machine),
    'PROXY protocol': notApplicable('needs no module: for balancers that write PROXY headers (AWS NLB, HAProxy, ' +
      "nginx stream), use sources: ['proxy-protocol'] and 'trustedPeers'; 'auto' never chooses it. watch PORT " +
      '--proxy-protocol shows the headers'),
    "sources: 'auto'": ask(({ auto }) => works
      ? good(auto)
      : bad(auto, vtoaCommand(machine) ?? attachCommand(machine) ?? WATCH))
  }
}

function judgeAsked (machine: Machine, by: (kernel: Kernel) => Verdict): Verdict {
  const { kernel, platform } = machine
  if (typeof kernel !== 'string') return by(kernel)
  if (platform !== 'linux') return notApplicable(`not asked: ${kernel}`)
  return unknown(`not asked: ${kernel}`, judgeKoffi(machine).fix ?? 'sudo ip link set lo up, and run doctor again')
}

export const answers = ({ optnames }: Kernel, optname: number): boolean => optnames[optname] !== 'ENOPROTOOPT'

const resultOf = ({ optnames }: Kernel, optname: number): string =>
  `it answers (${optnames[optname]} on a loopback connection, which has no TOA)`

/** The N of 5.10.134-N, -Infinity for older kernels and Infinity for newer ones; `undefined` for other systems. */
function alinux3 (release: string): number | undefined {
  const match = /^(\d+)\.(\d+)\.(\d+)-(\d+).*\.al8\b/.exec(release)
  if (match === null) return undefined
  const [major, minor, patch, build] = match.slice(1).map(Number) as [number, number, number, number]
  const order = major - 5 || minor - 10 || patch - 134
  return order === 0 ? build : order * Infinity
}

/** The command that installs vtoa; `undefined` if there is none for the kernel. */
export function vtoaCommand (machine: Machine): string | undefined {
  if (alinux3(machine.release) === undefined) return undefined
  return isContainer(machine) ? `on the host: ${INSTALL_VTOA}` : INSTALL_VTOA
}

function judgePlatform ({ platform, arch, node }: Machine): Verdict {
  const here = `${platform} on ${arch}, Node.js ${node}`
  if (platform === 'linux') return good(here)
  return bad(`${here}: TOA can be read on Linux only; elsewhere request.realIp is the socket's remote address`,
    ON_LINUX)
}

function judgeRelease ({ platform, release }: Machine): Verdict {
  if (platform !== 'linux') return notApplicable(`${release}, not Linux`)
  const build = alinux3(release)
  if (build === undefined) {
    return unknown(`${release}: vtoa is only for Alibaba Cloud Linux 3. Here use ` +
      `${kernelBefore(release, 5, 10) ? '' : 'fastify-real-ip attach, '}your balancer's own toa.ko, or 'saved-syn' ` +
      'if the balancer writes TOA on the SYN: watch shows whether it does', WATCH)
  }
  if (build >= GETSOCKOPT) return good(`${release}: with vtoa it answers getsockopt 1348 and getpeername`)
  const wanted = `getsockopt 1348 needs 5.10.134-${GETSOCKOPT} or later`
  if (build >= GETPEERNAME) return good(`${release}: with vtoa it answers getpeername; ${wanted}`, UPDATE_KERNEL)
  return bad(`${release}: vtoa needs 5.10.134-${GETPEERNAME} or later, ${wanted}`, UPDATE_KERNEL)
}

function judgeKoffi ({ platform, koffi: { state, message } }: Machine): Verdict {
  if (platform !== 'linux') return notApplicable('needed only on Linux')
  if (state === 'works') return good('can be loaded (tried in a child process)')
  if (state === 'untried') return unknown(message, 'node --require koffi --eval 0 && echo it loads')
  if (/native Koffi module/.test(message)) {
    return bad(`${message}: its binary is missing. Optional dependencies were omitted, or the lock file was written ` +
      'on another platform and does not list it, or a bundler included koffi: keep koffi external',
    'npm install --include=optional')
  }
  if (/Cannot find/.test(message)) return bad(message, 'npm install koffi')
  if (/addon/.test(message)) {
    return bad(message, 'start Node.js without --no-addons; with --permission add --allow-addons')
  }
  return bad(`${message}: its binary is truncated, or for another platform`, REINSTALL_KOFFI)
}

function judgeVtoa (machine: Machine, works: boolean): Verdict {
  const { modules } = machine
  const command = vtoaCommand(machine)
  if (modules === undefined) return unknown(NO_SYS, MODULES_ELSEWHERE)
  if (modules.vtoa) return good('loaded')
  if (command === undefined) return notApplicable('not loaded: it is only for Alibaba Cloud Linux 3')
  return works ? notApplicable('not loaded: another module is') : bad('not loaded', command)
}

function judgeToa (machine: Machine, works: boolean): Verdict {
  const { modules, kernel } = machine
  if (modules === undefined) return unknown(NO_SYS, MODULES_ELSEWHERE)
  if (modules.toa) {
    const isDpvs = typeof kernel !== 'string' && answers(kernel, 4096)
    return good('loaded: getpeername returns the client' + (isDpvs
      ? ''
      : ". Huawei's module does so only for listeners on an IPv4 address: with it listen on 0.0.0.0, not on ::"))
  }
  const not = 'not loaded: DPVS, UCloud, Huawei and other balancers provide one'
  return works || vtoaCommand(machine) !== undefined ? notApplicable(not) : bad(not, LOAD_TOA)
}

function judge1348 (machine: Machine, kernel: Kernel, works: boolean): Verdict {
  if (answers(kernel, 1348)) return good(`vtoa or attach: ${resultOf(kernel, 1348)}`)
  const not = 'no module answers 1348: not loaded, or too old'
  const command = vtoaCommand(machine)
  const attach = attachCommand(machine)
  if (command === undefined) {
    return works || attach === undefined
      ? notApplicable(`${not}; only vtoa's newer builds and fastify-real-ip attach answer it`)
      : bad(`${not}, and nothing is attached to the cgroup of this process`, attach)
  }
  const fix = (first: string) => attach === undefined ? first : `${first}; or ${attach}`
  const build = alinux3(machine.release) as number
  if (machine.modules?.vtoa === true) {
    const update = build < GETSOCKOPT ? UPDATE_KERNEL : 'sudo yum update vtoa -y'
    return bad(`${not}. vtoa is loaded, and getpeername answers`, fix(update))
  }
  return works ? notApplicable(not) : bad(not, fix(build < GETPEERNAME ? UPDATE_KERNEL : command))
}

function judgeCounters ({ modules, vtoaStats, toaStats }: Machine): Verdict {
  const found = Object.entries({ vtoa_stats: vtoaStats, toa_stats: toaStats })
    .flatMap(([name, text]) => text === undefined ? [] : [`${name}: ${sumCounters(text) || 'empty'}`])
  if (found.length > 0) return good(found.join('; '))
  if (modules === undefined) return unknown('none visible; whether a module is loaded is unknown', MODULES_ELSEWHERE)
  const loaded = modules.vtoa ? 'vtoa' : modules.toa ? 'toa' : undefined
  if (loaded === undefined) return notApplicable('none: no module is visible')
  const path = `/proc/net/${loaded}_stats`
  return unknown(`${path} is not visible in this network namespace`, `on the host: cat ${path}`)
}

/** Each counter is a line with a column per CPU. */
function sumCounters (text: string): string {
  return text.split('\n').flatMap((line) => {
    const match = /^\s*(\w+)\s*:?\s+(\d[\d\s]*)$/.exec(line)
    if (match === null) return []
    const [, name, numbers] = match as unknown as [string, string, string]
    return [`${name} ${numbers.trim().split(/\s+/).reduce((sum, number) => sum + Number(number), 0)}`]
  }).join(', ')
}

function judgeVirtualServer (kernel: Kernel): Verdict {
  const known = [1345, 1346, 1347].filter((optname) => answers(kernel, optname))
  return known.length > 0
    ? good(`${known.join(', ')} answered: virtualServer: true works`)
    : notApplicable('no module answers (ENOPROTOOPT); only virtualServer: true needs it')
}

function judgeSaveSyn ({ saveSyn, savedSyn }: Kernel): Verdict {
  if (saveSyn !== undefined) {
    return bad(`refused (${saveSyn}): it needs Linux 4.3 or later`,
      "update the kernel; until then remove 'trustedPeers', or set it to 'any'")
  }
  return savedSyn
    ? good('set on a socket, and a SYN was saved')
    : bad('set on a socket, but no SYN was saved: are SYN cookies always on?', SYNCOOKIES_IN_NEED)
}

function judgeSyncookies ({ syncookies, platform }: Machine): Verdict {
  switch (syncookies) {
    case '0': return good('off: SYNs are always saved')
    case '1': return good('used only in a SYN flood; then SYNs are not saved, and sock_diag finds the sender')
    case '2': return bad("always on: no SYN is ever saved, and 'saved-syn' cannot work", SYNCOOKIES_IN_NEED)
    default: return unreadable('tcp_syncookies', platform)
  }
}

// <net/tcp.h>: TFO_SERVER_ENABLE, TFO_SERVER_COOKIE_NOT_REQD.
const FASTOPEN_SERVER = 2
const FASTOPEN_WITHOUT_COOKIE = 0x200

function judgeFastOpen ({ fastopen, platform }: Machine): Verdict {
  if (fastopen === undefined) return unreadable('tcp_fastopen', platform)
  const flags = Number(fastopen)
  if ((flags & FASTOPEN_SERVER) === 0) return good('off for servers')
  const closed = "with 'trustedPeers' the plugin disables it on its own listeners"
  return (flags & FASTOPEN_WITHOUT_COOKIE) === 0
    ? good(`on for servers, with cookies; ${closed}`)
    : bad(`on for servers without cookies: senders can be forged; ${closed}`,
      'sudo sysctl -w net.ipv4.tcp_fastopen=1')
}

function unreadable (name: string, platform: string): Verdict {
  const message = `net.ipv4.${name} cannot be read`
  return platform === 'linux' ? unknown(message, `on the host: sysctl net.ipv4.${name}`) : notApplicable(message)
}

function judgeNamespace (machine: Machine): Verdict {
  const onTheHost = 'on the host: npx fastify-real-ip doctor'
  if (machine.platform !== 'linux') return notApplicable('network namespaces exist only on Linux')
  if (machine.hostNetwork === undefined) return unknown('cannot be determined', onTheHost)
  if (machine.hostNetwork) {
    return good(`${isContainer(machine) ? 'a container in ' : ''}the host's own network namespace`)
  }
  return unknown("a container's or another network namespace: modules on the host serve it too, but their counters " +
    'are visible only on the host', onTheHost)
}
