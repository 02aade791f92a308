import type { KernelSource } from '../../types'
import type { Kernel, Machine } from './machine'
import { paint, type Style, type Terminal, wrap } from './paint'

export interface Finding {
  readonly name: string
  readonly state: 'good' | 'bad' | 'unknown'
  readonly message: string
  /** The command that mends it, where there is one. */
  readonly fix?: string
}

export interface Report {
  /** Whether a source works that needs no decision about trust. */
  readonly works: boolean
  /** Those that do. */
  readonly sources: ReadonlyArray<KernelSource>
  readonly message: string
  readonly findings: ReadonlyArray<Finding>
}

type Verdict = Omit<Finding, 'name'>

const good = (message: string, fix?: string): Verdict => ({ state: 'good', message, ...(fix !== undefined && { fix }) })
const bad = (message: string, fix?: string): Verdict => ({ state: 'bad', message, ...(fix !== undefined && { fix }) })
const unknown = (message: string, fix?: string): Verdict => ({ state: 'unknown', message, ...(fix !== undefined && { fix }) })

// The first kernels of Alibaba Cloud Linux 3 with which vtoa answers, by the last number of 5.10.134-N.
const GETPEERNAME = 15
const GETSOCKOPT = 17

const WATCH = 'npx fastify-real-ip watch PORT'
const UPDATE_KERNEL = 'sudo yum update kernel -y && sudo reboot'
const INSTALL_VTOA = 'sudo yum install vtoa -y && sudo systemctl start vtoa'

/** Judges what was found on a machine. Pure. */
export function diagnose (machine: Machine): Report {
  const { modules, kernel } = machine
  const asked = typeof kernel === 'string' ? undefined : kernel
  const sources: KernelSource[] = []
  if (asked !== undefined) {
    if (answers(asked, 1348)) sources.push('vtoa')
    if (answers(asked, 4096)) sources.push('nat64')
    // Without a module getpeername gives the transport peer alone.
    if (modules?.vtoa === true || modules?.toa === true) sources.push('getpeername')
  }
  const works = sources.length > 0
  const verdicts: Record<string, Verdict> = {
    platform: judgePlatform(machine),
    kernel: judgeRelease(machine),
    koffi: judgeKoffi(machine),
    'module vtoa': judgeVtoa(machine),
    'module toa': judgeToa(machine),
    counters: judgeCounters(machine),
    'getsockopt 1348': judge(kernel, (asked) => answers(asked, 1348)
      ? good(`vtoa's: ${said(asked, 1348)}`)
      : bad('no module answers (ENOPROTOOPT)', vtoaCommand(machine))),
    'getsockopt 1345-1347': judge(kernel, judgeVirtualServer),
    'getsockopt 4096': judge(kernel, (asked) => answers(asked, 4096)
      ? good(`DPVS's toa module: ${said(asked, 4096)}`)
      : bad('no module answers (ENOPROTOOPT); only DPVS with NAT64 needs it')),
    TCP_SAVE_SYN: judge(kernel, judgeSaveSyn),
    sock_diag: judge(kernel, ({ diag }) => diag
      ? good('tells who really sent the packets of a connection')
      : bad('does not tell who sent the packets of a connection', 'sudo modprobe -a inet_diag tcp_diag')),
    'SYN cookies': judgeSyncookies(machine),
    'Fast Open': judgeFastOpen(machine),
    namespace: judgeNamespace(machine),
    "sources: 'auto'": judge(kernel, ({ auto }) => works ? good(auto) : bad(auto))
  }
  return {
    works,
    sources,
    message: conclude(machine, sources),
    findings: Object.entries(verdicts).map(([name, verdict]) => ({ name, ...verdict }))
  }
}

const judge = (kernel: Kernel | string, by: (kernel: Kernel) => Verdict): Verdict =>
  typeof kernel === 'string' ? unknown(`not asked: ${kernel}`) : by(kernel)

const answers = ({ optnames }: Kernel, optname: number): boolean => optnames[optname] !== 'ENOPROTOOPT'

const said = ({ optnames }: Kernel, optname: number): string =>
  `it answers (${optnames[optname]} on a loopback connection, which has no TOA)`

/** The N of 5.10.134-N, or a lower number for an older kernel and a higher one for a newer; undefined for other systems. */
function alinux3 (release: string): number | undefined {
  const match = /^(\d+)\.(\d+)\.(\d+)-(\d+).*\.al8\b/.exec(release)
  if (match === null) return undefined
  const [major, minor, patch, build] = match.slice(1).map(Number) as [number, number, number, number]
  const order = major - 5 || minor - 10 || patch - 134
  return order === 0 ? build : order * Infinity
}

/** What makes vtoa answer. */
function vtoaCommand (machine: Machine): string | undefined {
  if (alinux3(machine.release) === undefined) return undefined
  return isContainer(machine) ? `on the host: ${INSTALL_VTOA}` : INSTALL_VTOA
}

const isContainer = ({ hostNetwork, hostProcesses }: Machine): boolean => hostNetwork === false || hostProcesses === false

function judgePlatform ({ platform, arch, node }: Machine): Verdict {
  const here = `${platform} on ${arch}, Node.js ${node}`
  return platform === 'linux' ? good(here) : bad(`${here}: TOA is read from Linux; elsewhere request.realIp is the socket's own remote address`)
}

function judgeRelease ({ platform, release }: Machine): Verdict {
  if (platform !== 'linux') return unknown(`${release}, not Linux`)
  const build = alinux3(release)
  if (build === undefined) {
    return unknown(`${release}: vtoa is for Alibaba Cloud Linux 3 alone. Here it takes your balancer's own toa.ko, or ` +
      "'saved-syn' where the balancer stamps the SYN: watch shows whether it does", WATCH)
  }
  if (build >= GETSOCKOPT) return good(`${release}: with vtoa it answers getsockopt 1348 and getpeername`)
  const wanted = `getsockopt 1348 takes 5.10.134-${GETSOCKOPT} or later`
  if (build >= GETPEERNAME) return good(`${release}: with vtoa it answers getpeername; ${wanted}`, UPDATE_KERNEL)
  return bad(`${release}: vtoa takes 5.10.134-${GETPEERNAME} or later, ${wanted}`, UPDATE_KERNEL)
}

function judgeKoffi ({ platform, koffi: { state, message } }: Machine): Verdict {
  if (platform !== 'linux') return unknown('needed on Linux alone')
  if (state === 'works') return good('can be loaded (tried in a process of its own)')
  if (state === 'untried') return unknown(message)
  if (/Cannot find/.test(message)) return bad(message, 'npm install koffi')
  if (/addon/.test(message)) return bad(`${message}: start Node.js without --no-addons, and where --permission is given with --allow-addons`)
  return bad(message, 'npm install koffi --force')
}

function judgeVtoa (machine: Machine): Verdict {
  if (machine.modules === undefined) return unknown('there is no /sys/module to look into')
  return machine.modules.vtoa ? good('loaded') : bad('not loaded', vtoaCommand(machine))
}

function judgeToa ({ modules }: Machine): Verdict {
  if (modules === undefined) return unknown('there is no /sys/module to look into')
  return modules.toa ? good('loaded: getpeername gives the client') : bad("not loaded: it comes with DPVS, UCloud's, Huawei's and other balancers")
}

function judgeCounters ({ modules, vtoaStats, toaStats }: Machine): Verdict {
  const found = Object.entries({ vtoa_stats: vtoaStats, toa_stats: toaStats })
    .flatMap(([name, text]) => text === undefined ? [] : [`${name}: ${sumCounters(text) || 'empty'}`])
  if (found.length > 0) return good(found.join('; '))
  const loaded = modules?.vtoa === true ? 'vtoa' : modules?.toa === true ? 'toa' : undefined
  return loaded === undefined
    ? unknown('none: no module is seen')
    : unknown(`/proc/net/${loaded}_stats is not seen in this network namespace`, `on the host: cat /proc/net/${loaded}_stats`)
}

/** Counters have a line each, with a column for each CPU. */
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
    : bad('no module answers (ENOPROTOOPT); only virtualServer: true needs it')
}

function judgeSaveSyn ({ saveSyn, savedSyn }: Kernel): Verdict {
  if (saveSyn !== undefined) return bad(`refused (${saveSyn}): it takes Linux 4.3 or later`)
  return savedSyn
    ? good('set on a socket, and a SYN read back')
    : bad('set on a socket, but no SYN was kept: are SYN cookies always on?', 'sudo sysctl -w net.ipv4.tcp_syncookies=1')
}

function judgeSyncookies ({ syncookies }: Machine): Verdict {
  switch (syncookies) {
    case '0': return good('off: SYNs are always kept')
    case '1': return good('used under a flood only; then SYNs are not kept, and sock_diag tells the sender')
    case '2': return bad("always on: no SYN is ever kept, and 'saved-syn' has nothing to read", 'sudo sysctl -w net.ipv4.tcp_syncookies=1')
    default: return unknown('net.ipv4.tcp_syncookies cannot be read')
  }
}

// <net/tcp.h>: TFO_SERVER_ENABLE, TFO_SERVER_COOKIE_NOT_REQD.
const FASTOPEN_SERVER = 2
const FASTOPEN_WITHOUT_COOKIE = 0x200

function judgeFastOpen ({ fastopen }: Machine): Verdict {
  if (fastopen === undefined) return unknown('net.ipv4.tcp_fastopen cannot be read')
  const flags = Number(fastopen)
  if ((flags & FASTOPEN_SERVER) === 0) return good('off for servers')
  const closed = "with 'trustedPeers' the plugin turns it off on its own listeners"
  return (flags & FASTOPEN_WITHOUT_COOKIE) === 0
    ? good(`on for servers, with cookies; ${closed}`)
    : bad(`on for servers without cookies, so that a sender can be forged; ${closed}`, 'sudo sysctl -w net.ipv4.tcp_fastopen=1')
}

function judgeNamespace (machine: Machine): Verdict {
  if (machine.hostNetwork === undefined) return unknown('cannot be told')
  if (machine.hostNetwork) {
    return good(isContainer(machine) ? "a container in the host's own network namespace" : "the host's own network namespace")
  }
  return unknown("a container's or another network namespace: modules are loaded on the host, and then serve it too; " +
    'their counters are seen on the host alone', 'on the host: npx fastify-real-ip doctor')
}

function conclude (machine: Machine, sources: ReadonlyArray<KernelSource>): string {
  const { kernel } = machine
  if (sources.length > 0) {
    return `Yes: ${sources.join(', ')}. Name your balancers in 'trustedPeers', for whoever else reaches the port can forge an address.`
  }
  if (typeof kernel === 'string') return `No: ${kernel}.`
  const command = vtoaCommand(machine)
  if (command !== undefined) return `No: vtoa does not answer. ${command}`
  return "No: no kernel module gives a client's address. Load your balancer's toa.ko; or, where the balancer stamps the " +
    `SYN, use 'saved-syn' with 'toa' and a list of 'trustedPeers', which is yours to decide. To see what it sends: ${WATCH}`
}

const styles: Record<Finding['state'], Style> = { good: 'green', bad: 'red', unknown: 'yellow' }

/** The report as text, in lines of so many columns where the words allow it. */
export function drawReport ({ works, message, findings }: Report, { colours = false, columns = Infinity }: Terminal): string {
  const width = Math.max(...findings.map(({ name }) => name.length))
  const margin = width + 13
  const indent = (text: string) => wrap(text, columns - margin).join(`\n${' '.repeat(margin)}`)
  const lines = findings.map(({ name, state, message, fix }) =>
    `  ${paint(styles[state], state.padEnd(7), colours)}  ${name.padEnd(width)}  ${indent(message)}` +
    (fix === undefined ? '' : `\n${' '.repeat(margin)}-> ${paint('bold', fix, colours)}`))
  return [...lines, '', ...wrap(message, columns).map((line) => paint(works ? 'green' : 'red', line, colours))].join('\n')
}
