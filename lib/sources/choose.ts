import type { KernelSource } from '../../types'
import { FST_REAL_IP_NATIVE_UNAVAILABLE } from '../errors'
import type { Libc } from '../kernel/libc'
import { kernelSources, type Options } from '../options/options'
import type { TransportPeers } from '../kernel/peer-search'
import { Getpeername } from './getpeername'
import { Nat64 } from './nat64'
import { SavedSyn } from './saved-syn'
import type { Source } from './source'
import { Vtoa } from './vtoa'

type Choice = Pick<Options, 'sources' | 'toa' | 'require'>

function createSource (name: KernelSource, libc: Libc, { syn }: Pick<TransportPeers, 'syn'>, { toa }: Choice): Source {
  switch (name) {
    case 'vtoa': return new Vtoa(libc)
    case 'nat64': return new Nat64(libc)
    case 'getpeername': return new Getpeername(libc)
    case 'saved-syn': return new SavedSyn(syn, toa?.formats ?? [])
  }
}

/**
 * The sources to ask, in order. Throws FST_REAL_IP_NATIVE_UNAVAILABLE where they are required and none can work now.
 */
export function chooseSources (
  libc: Libc, peers: Pick<TransportPeers, 'syn'>, options: Choice, say: (message: string) => void
): ReadonlyArray<Source> {
  const create = (name: KernelSource) => createSource(name, libc, peers, options)
  if (options.sources === 'auto') return chooseByMachine(create, options, say)
  const sources = options.sources.map(create)
  if (options.require) {
    const missing = sources.map((source) => source.missing())
    if (!missing.includes(undefined)) throw new FST_REAL_IP_NATIVE_UNAVAILABLE(missing.join('; '))
  }
  return sources
}

function chooseByMachine (create: (name: KernelSource) => Source, { toa }: Choice, say: (message: string) => void): ReadonlyArray<Source> {
  const active: Source[] = []
  const used: string[] = []
  const others: string[] = []
  for (const name of kernelSources) {
    const source = create(name)
    const why = name === 'saved-syn' ? whyNotSavedSyn(toa) : source.missing()
    // vtoa can be started later, and is looked for again now and then.
    if (why === undefined || name === 'vtoa') {
      active.push(source)
      used.push(why === undefined ? name : `${name} (not now: ${why})`)
    } else {
      others.push(`${name} (${why})`)
    }
  }
  say(`fastify-real-ip: sources ${used.join(', ')}` + (others.length === 0 ? '' : `; not ${others.join(', not ')}`))
  return active
}

const whyNotSavedSyn = (toa: Choice['toa']): string | undefined =>
  toa === undefined ? "it needs 'toa' and a list of 'trustedPeers'" : toa.silentOnSyn

/** The sources that must not contradict the one that answers: the SYN, and with 'saved-syn' the kernel modules too. */
export function chooseWitnesses (
  sources: ReadonlyArray<Source>, { syn }: Pick<TransportPeers, 'syn'>, { toa }: Choice
): ReadonlyArray<Source> {
  if (toa === undefined || toa.silentOnSyn !== undefined) return []
  return sources.some(({ name }) => name === 'saved-syn') ? sources : [new SavedSyn(syn, toa.formats)]
}
