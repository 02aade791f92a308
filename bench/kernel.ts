import type * as Lab from '../test/lab/lab'

/** The cgroups in which 1348 answers; empty on an unmodified kernel. */
export interface Kernel {
  readonly serverCgroup?: string
  readonly clientCgroup?: string
}

/** Runs `measure` while a stand-in for vtoa answers 1348 and clients stamp TOA; returns why if that is impossible. */
export function withVtoa<T> (derive: 'v4' | 'v6', measure: (kernel: Kernel) => Promise<T>): Promise<T | string> {
  return withLab(async (lab) => {
    lab.module.start()
    const client = await lab.client({ derive })
    return await measure({ serverCgroup: lab.serverCgroup, clientCgroup: client.cgroup })
  })
}

/** Runs `measure` while clients stamp TOA on their SYNs, and no module reads it. */
export function withStamp<T> (derive: 'v4' | 'v6', measure: (kernel: Kernel) => Promise<T>): Promise<T | string> {
  return withLab(async (lab) => {
    const client = await lab.client({ derive, on: ['syn'] })
    return await measure({ clientCgroup: client.cgroup })
  })
}

export async function withLab<T> (measure: (lab: Lab.Lab) => Promise<T>): Promise<T | string> {
  const { labUnavailable, openLab } = require('../test/lab/lab') as typeof Lab
  const unavailable = labUnavailable()
  if (unavailable !== undefined) return unavailable
  const lab = await openLab()
  try {
    return await measure(lab)
  } finally {
    await lab.close()
  }
}
