import { EventEmitter, once } from 'node:events'
import { readFileSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import type { Test } from 'tap'
import { type Diag, loadLibc, type Libc } from '../../lib/kernel/libc'
import { PeerSearch } from '../../lib/kernel/peer-search'
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

/** Counts what sock_diag(7) is asked. */
export function countDiags (t: Test): () => number {
  const libc = loadLibc() as Libc
  const { openDiag } = libc
  let asked = 0
  libc.openDiag = () => {
    const diag = openDiag() as Diag
    return {
      ...diag,
      send (length) {
        asked++
        return diag.send(length)
      }
    }
  }
  t.teardown(() => { libc.openDiag = openDiag })
  return () => asked
}

export interface HeldDumps {
  /** Resolves once so many connections wait for their transport peer. */
  waiting (count: number): Promise<void>
  /** Has all be looked for that wait, and from now on each at once. */
  release (): void
}

/** Of the connections whose transport peer is looked for only the first one has it at once: the others wait. */
export function holdDumps (t: Test): HeldDumps {
  const { ask } = PeerSearch.prototype
  t.teardown(() => { PeerSearch.prototype.ask = ask })
  const events = new EventEmitter()
  const waiting: Array<() => void> = []
  let asked = 0
  let held = true
  PeerSearch.prototype.ask = function (fd, found) {
    if (!held || asked++ === 0) return ask.call(this, fd, found)
    waiting.push(() => { ask.call(this, fd, found) })
    events.emit('held')
  }
  return {
    async waiting (count) {
      while (waiting.length < count) await once(events, 'held')
    },
    release () {
      held = false
      for (const search of waiting.splice(0)) search()
    }
  }
}

export function open (t: Test): Player {
  const player = openPlayer()
  t.teardown(() => player.close())
  return player
}
