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
const LOAD_TOA = "load the toa.ko that your balancer's vendor gives for this kernel: sudo insmod toa.ko"
const ON_LINUX = 'run the server on Linux; for development there is nothing to do'
const NO_SYS = 'there is no /sys/module to look into'
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
      ? good(`DPVS's toa module: ${said(kernel, 4096)}`)
      : notApplicable('no module answers (ENOPROTOOPT); only DPVS with NAT64 needs it')),
    TCP_SAVE_SYN: ask(judgeSaveSyn),
    sock_diag: ask(({ diag }) => diag
      ? good('tells who really sent the packets of a connection')
      : bad('does not tell who sent the packets of a connection', 'sudo modprobe -a inet_diag tcp_diag')),
    'SYN cookies': judgeSyncookies(machine),
    'Fast Open': judgeFastOpen(machine),
    namespace: judgeNamespace(machine),
    'PROXY protocol': notApplicable('needs no module: for balancers that write PROXY headers (AWS NLB, HAProxy, ' +
      "nginx stream), with sources: ['proxy-protocol'] and 'trustedPeers'; 'auto' never chooses it. watch PORT " +
      '--proxy-protocol shows what they write'),
    "sources: 'auto'": ask(({ auto }) => works
      ? good(auto)
      : bad(auto, vtoaCommand(machine) ?? attachCommand(machine) ?? WATCH))
  }
}

function judgeAsked (machine: Machine, by: (kernel: Kernel) => Verdict): Verdict {
  const { kernel, platform } = machine
  if (typeof kernel !== 'string') return by(kernel)
  if (platform !== 'linux') return notApplicable(`not asked: ${kernel}`)
  return unknown(`not asked: ${kernel}`, judgeKoffi(machine).fix ?? 'sudo ip link set lo up, and run this again')
}

export const answers = ({ optnames }: Kernel, optname: number): boolean => optnames[optname] !== 'ENOPROTOOPT'

const said = ({ optnames }: Kernel, optname: number): string =>
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
  return bad(`${here}: TOA is read from Linux; elsewhere request.realIp is the socket's own remote address`, ON_LINUX)
}

function judgeRelease ({ platform, release }: Machine): Verdict {
  if (platform !== 'linux') return notApplicable(`${release}, not Linux`)
  const build = alinux3(release)
  if (build === undefined) {
    return unknown(`${release}: vtoa is for Alibaba Cloud Linux 3 alone. Here use ` +
      `${kernelBefore(release, 5, 10) ? '' : 'fastify-real-ip attach, '}your balancer's own toa.ko, or 'saved-syn' ` +
      'where the balancer stamps the SYN: watch shows whether it does', WATCH)
  }
  if (build >= GETSOCKOPT) return good(`${release}: with vtoa it answers getsockopt 1348 and getpeername`)
  const wanted = `getsockopt 1348 takes 5.10.134-${GETSOCKOPT} or later`
  if (build >= GETPEERNAME) return good(`${release}: with vtoa it answers getpeername; ${wanted}`, UPDATE_KERNEL)
  return bad(`${release}: vtoa takes 5.10.134-${GETPEERNAME} or later, ${wanted}`, UPDATE_KERNEL)
}

function judgeKoffi ({ platform, koffi: { state, message } }: Machine): Verdict {
  if (platform !== 'linux') return notApplicable('needed on Linux alone')
  if (state === 'works') return good('can be loaded (tried in a process of its own)')
  if (state === 'untried') return unknown(message, 'node --require koffi --eval 0 && echo it loads')
  if (/native Koffi module/.test(message)) {
    return bad(`${message}: its binary is missing. Optional dependencies were left out, or the lock file was written ` +
      'on another platform and does not list it, or a bundler has taken koffi in: keep koffi external',
    'npm install --include=optional')
  }
  if (/Cannot find/.test(message)) return bad(message, 'npm install koffi')
  if (/addon/.test(message)) {
    return bad(message, 'start Node.js without --no-addons, and where --permission is given with --allow-addons')
  }
  return bad(`${message}: its binary is cut short, or not for this machine`, REINSTALL_KOFFI)
}

function judgeVtoa (machine: Machine, works: boolean): Verdict {
  const { modules } = machine
  const command = vtoaCommand(machine)
  if (modules === undefined) return unknown(NO_SYS, MODULES_ELSEWHERE)
  if (modules.vtoa) return good('loaded')
  if (command === undefined) return notApplicable('not loaded: it is for Alibaba Cloud Linux 3 alone')
  return works ? notApplicable('not loaded: another module is') : bad('not loaded', command)
}

function judgeToa (machine: Machine, works: boolean): Verdict {
  const { modules, kernel } = machine
  if (modules === undefined) return unknown(NO_SYS, MODULES_ELSEWHERE)
  if (modules.toa) {
    const isDpvs = typeof kernel !== 'string' && answers(kernel, 4096)
    return good('loaded: getpeername gives the client' + (isDpvs
      ? ''
      : ". Huawei's does that for listeners on an IPv4 address alone: with it let the server listen on 0.0.0.0, " +
        'not on ::'))
  }
  const not = "not loaded: it comes with DPVS, UCloud's, Huawei's and other balancers"
  return works || vtoaCommand(machine) !== undefined ? notApplicable(not) : bad(not, LOAD_TOA)
}

function judge1348 (machine: Machine, kernel: Kernel, works: boolean): Verdict {
  if (answers(kernel, 1348)) return good(`vtoa or attach: ${said(kernel, 1348)}`)
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
  if (modules === undefined) return unknown('none is seen, nor whether a module is loaded', MODULES_ELSEWHERE)
  const loaded = modules.vtoa ? 'vtoa' : modules.toa ? 'toa' : undefined
  if (loaded === undefined) return notApplicable('none: no module is seen')
  const path = `/proc/net/${loaded}_stats`
  return unknown(`${path} is not seen in this network namespace`, `on the host: cat ${path}`)
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
    ? good(`${known.join(', ')} answered: virtualServer: true has something to read`)
    : notApplicable('no module answers (ENOPROTOOPT); only virtualServer: true needs it')
}

function judgeSaveSyn ({ saveSyn, savedSyn }: Kernel): Verdict {
  if (saveSyn !== undefined) {
    return bad(`refused (${saveSyn}): it takes Linux 4.3 or later`,
      "update the kernel; until then leave 'trustedPeers' out, or write 'any'")
  }
  return savedSyn
    ? good('set on a socket, and a SYN read back')
    : bad('set on a socket, but no SYN was kept: are SYN cookies always on?', SYNCOOKIES_IN_NEED)
}

function judgeSyncookies ({ syncookies, platform }: Machine): Verdict {
  switch (syncookies) {
    case '0': return good('off: SYNs are always kept')
    case '1': return good('used under a flood only; then SYNs are not kept, and sock_diag tells the sender')
    case '2': return bad("always on: no SYN is ever kept, and 'saved-syn' has nothing to read", SYNCOOKIES_IN_NEED)
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
  const closed = "with 'trustedPeers' the plugin turns it off on its own listeners"
  return (flags & FASTOPEN_WITHOUT_COOKIE) === 0
    ? good(`on for servers, with cookies; ${closed}`)
    : bad(`on for servers without cookies, so that a sender can be forged; ${closed}`,
      'sudo sysctl -w net.ipv4.tcp_fastopen=1')
}

function unreadable (name: string, platform: string): Verdict {
  const message = `net.ipv4.${name} cannot be read`
  return platform === 'linux' ? unknown(message, `on the host: sysctl net.ipv4.${name}`) : notApplicable(message)
}

function judgeNamespace (machine: Machine): Verdict {
  const onTheHost = 'on the host: npx fastify-real-ip doctor'
  if (machine.platform !== 'linux') return notApplicable("namespaces are Linux's")
  if (machine.hostNetwork === undefined) return unknown('cannot be told', onTheHost)
  if (machine.hostNetwork) {
    return good(`${isContainer(machine) ? 'a container in ' : ''}the host's own network namespace`)
  }
  return unknown("a container's or another network namespace: modules are loaded on the host, and then serve it too; " +
    'their counters are seen on the host alone', onTheHost)
}
