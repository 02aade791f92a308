import { EventEmitter, once } from 'node:events'
import type { Test } from 'tap'
import { type Found, PeerSearch } from '../../lib/kernel/peer-search'
import { SynReader } from '../../lib/kernel/saved-syn'

/** For the rest of a test no connection has a saved SYN, and who sent it is not found before the test says so. */
export interface HeldSearches {
  /** How many searches have begun and not ended. */
  readonly size: number
  /** Resolves once so many wait. */
  waiting (size?: number): Promise<void>
  /** Ends them all: with what sock_diag(7) finds, or what is given. */
  release (...peer: Parameters<Found> | []): void
}

const { ask } = PeerSearch.prototype
const { read } = SynReader.prototype

export function holdSearches (t: Test): HeldSearches {
  t.teardown(() => {
    PeerSearch.prototype.ask = ask
    SynReader.prototype.read = read
  })
  const events = new EventEmitter()
  const searches: Array<(...peer: Parameters<Found> | []) => void> = []
  SynReader.prototype.read = function () {
    this.forget()
    return false
  }
  PeerSearch.prototype.ask = function (fd, found) {
    searches.push((...peer) => peer.length === 0 ? ask.call(this, fd, found) : found(...peer))
    events.emit('search')
  }
  return {
    get size () { return searches.length },
    async waiting (size = 1) {
      while (searches.length < size) await once(events, 'search')
    },
    release (...peer) {
      for (const search of searches.splice(0)) search(...peer)
    }
  }
}
