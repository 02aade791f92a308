import { readFileSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import type { Test } from 'tap'
import { type Diag, loadLibc, type Libc } from '../../lib/kernel/libc'
import { openPlayer, type Player } from '../player/player'

/** Sets a sysctl of this network namespace for the rest of a test. */
export function sysctl (t: Test, name: string, value: string | number): void {
  const path = `/proc/sys/net/ipv4/${name}`
  const before = readFileSync(path)
  writeFileSync(path, String(value))
  t.teardown(() => writeFileSync(path, before))
}

/** The rest of a test may not use sock_diag(7), as under a seccomp filter. */
export function refuseDiag (t: Test): void {
  const libc = loadLibc() as Libc
  const { openDiag } = libc
  libc.openDiag = () => constants.errno.EPERM
  t.teardown(() => { libc.openDiag = openDiag })
}

/** Calls `sent` whenever sock_diag(7) is asked something, for the rest of a test. */
function onDiag (t: Test, sent: () => void): void {
  const libc = loadLibc() as Libc
  const { openDiag } = libc
  libc.openDiag = () => {
    const diag = openDiag() as Diag
    return {
      ...diag,
      send (length) {
        sent()
        return diag.send(length)
      }
    }
  }
  t.teardown(() => { libc.openDiag = openDiag })
}

/** Counts what sock_diag(7) is asked. */
export function countDiags (t: Test): () => number {
  let asked = 0
  onDiag(t, () => { asked++ })
  return () => asked
}

/**
 * Of the connections whose transport peer is looked for only the first one has it at once: its dump took ten seconds, says
 * the clock that keeps dumps apart. The others wait until one comes after the returned function was called.
 */
export function holdDumps (t: Test): () => void {
  const { now } = performance
  let later = 0
  let asked = 0
  onDiag(t, () => { if (++asked === 2) later += 10_000 })
  t.intercept(performance, 'now', { value: () => now.call(performance) + later })
  return () => { later += 1_000_000 }
}

export function open (t: Test): Player {
  const player = openPlayer()
  t.teardown(() => player.close())
  return player
}
