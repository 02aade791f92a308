import type * as Lab from '../test/kernel/lab'

/** Where processes have to be for 1348 to answer them; anywhere on a kernel as it is. */
export interface Kernel {
  readonly serverCgroup?: string
  readonly clientCgroup?: string
}

/** Runs `measure` while a stand-in for vtoa answers 1348 and clients stamp TOA; where that cannot be had, says why. */
export async function withVtoa<T> (derive: 'v4' | 'v6', measure: (kernel: Kernel) => Promise<T>): Promise<T | string> {
  const { labUnavailable, openLab } = require('../test/kernel/lab') as typeof Lab
  const unavailable = labUnavailable()
  if (unavailable !== undefined) return unavailable
  const lab = await openLab()
  try {
    lab.module.start()
    const client = await lab.client({ derive })
    return await measure({ serverCgroup: lab.serverCgroup, clientCgroup: client.cgroup })
  } finally {
    await lab.close()
  }
}
