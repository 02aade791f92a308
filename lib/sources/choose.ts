import type { KernelSource } from '../../types'
import { FST_REAL_IP_NATIVE_UNAVAILABLE } from '../errors'
import type { Libc } from '../kernel/libc'
import { PeerSearch } from '../kernel/peer-search'
import { armListener, type Syn, SynReader } from '../kernel/saved-syn'
import { decodeSockaddr, type Endpoint } from '../kernel/sockaddr'
import { createVirtualServerReader, type VirtualServerReader } from '../kernel/virtual-server'
import { kernelSources, type Options } from '../options/options'
import { Getpeername } from './getpeername'
import { Nat64 } from './nat64'
import { createResolve, type Resolve } from './resolve'
import { SavedSyn } from './saved-syn'
import type { Source } from './source'
import { Vtoa } from './vtoa'

/** Kernel access to the senders of connections, shared by all applications on one server. */
export class Senders {
  readonly libc: Libc
  readonly syn: SynReader
  readonly search: PeerSearch
  #isArmed = false

  /** `onError` receives what a callback of the search throws. */
  constructor (libc: Libc, onError: (error: unknown) => void) {
    this.libc = libc
    this.syn = new SynReader(libc)
    this.search = new PeerSearch(libc, onError)
  }

  /** Whether a listening socket keeps SYNs. */
  get isArmed (): boolean { return this.#isArmed }

  /** See armListener(). */
  arm (fd: number): string | undefined {
    const errno = armListener(this.libc, fd)
    if (errno === undefined) this.#isArmed = true
    return errno
  }
}

/** Kernel access for one application. */
export interface KernelAccess {
  readonly senders: Pick<Senders, 'syn' | 'search' | 'isArmed'>
  readonly resolve: Resolve
  /** Sources that must not contradict the one that gave the claim. */
  readonly witnesses: ReadonlyArray<Source>
  readonly readVirtualServer: VirtualServerReader | undefined
  /** getsockname(2); false, with `into` unchanged, if it fails. */
  readonly readLocal: (fd: number, into: Endpoint) => boolean
}

type Choice = Pick<Options, 'sources' | 'toa' | 'require'>
/** Logs one line. */
type LogInfo = (message: string) => void

/**
 * Opens the kernel access that the options need. Throws FST_REAL_IP_NATIVE_UNAVAILABLE if sources are required and none
 * can work now.
 */
export function openKernel (
  senders: Senders, options: Choice & Pick<Options, 'virtualServer'>, logInfo: LogInfo
): KernelAccess {
  const { libc, syn } = senders
  const sources = chooseSources(libc, syn, options, logInfo)
  return {
    senders,
    resolve: createResolve(sources),
    witnesses: chooseWitnesses(sources, syn, options),
    readVirtualServer: options.virtualServer ? createVirtualServerReader(libc) : undefined,
    readLocal: (fd, into) => libc.getsockname(fd) === 0 && decodeSockaddr(libc.sockaddr, libc.family(), into)
  }
}

function createSource (name: KernelSource, libc: Libc, syn: Syn, { toa }: Choice): Source {
  switch (name) {
    case 'vtoa': return new Vtoa(libc)
    case 'nat64': return new Nat64(libc)
    case 'getpeername': return new Getpeername(libc)
    case 'saved-syn': return new SavedSyn(syn, toa?.formats ?? [])
  }
}

/** The sources to ask, in order. Throws FST_REAL_IP_NATIVE_UNAVAILABLE if they are required and none can work now. */
export function chooseSources (libc: Libc, syn: Syn, options: Choice, logInfo: LogInfo): ReadonlyArray<Source> {
  const create = (name: KernelSource) => createSource(name, libc, syn, options)
  if (options.sources === 'auto') return chooseByMachine(create, options, logInfo)
  const sources = options.sources.map(create)
  const silent = sources.map((source) => source.missing()).filter((why) => why !== undefined)
  if (options.require && sources.length > 0 && silent.length === sources.length) {
    throw new FST_REAL_IP_NATIVE_UNAVAILABLE(silent.join('; '))
  }
  if (silent.length > 0) logInfo(`fastify-real-ip: some sources do not work now: ${silent.join('; ')}`)
  return sources
}

function chooseByMachine (
  create: (name: KernelSource) => Source, { toa }: Choice, logInfo: LogInfo
): ReadonlyArray<Source> {
  const active: Source[] = []
  const used: string[] = []
  const others: string[] = []
  for (const name of kernelSources) {
    const source = create(name)
    const why = name === 'saved-syn' ? whyNotSavedSyn(toa) : source.missing()
    // vtoa or attach may start later, and is probed again.
    if (why === undefined || name === 'vtoa') {
      active.push(source)
      used.push(why === undefined ? name : `${name} (not now: ${why})`)
    } else {
      others.push(`${name} (${why})`)
    }
  }
  const not = others.length === 0 ? '' : `; not ${others.join(', not ')}`
  logInfo(`fastify-real-ip: sources ${used.join(', ')}${not}`)
  return active
}

const whyNotSavedSyn = (toa: Choice['toa']): string | undefined =>
  toa === undefined ? "it needs 'toa' and a list of 'trustedPeers'" : toa.silentOnSyn

/**
 * The sources that must not contradict the one that gave the claim: the SYN, and with 'saved-syn' the kernel modules
 * too.
 */
export function chooseWitnesses (sources: ReadonlyArray<Source>, syn: Syn, { toa }: Choice): ReadonlyArray<Source> {
  if (toa === undefined || toa.silentOnSyn !== undefined) return []
  return sources.some(({ name }) => name === 'saved-syn') ? sources : [new SavedSyn(syn, toa.formats)]
}
