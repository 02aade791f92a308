import { Duplex } from 'node:stream'

/** Two streams, each the other's far end: node:stream has one of its own only since Node.js 22.6. */
export function duplexPair (): [Duplex, Duplex] {
  class Half extends Duplex {
    other!: Half
    override _read () {}
    override _write (chunk: Buffer, _encoding: string, done: () => void) {
      this.other.push(chunk)
      done()
    }

    override _final (done: () => void) {
      this.other.push(null)
      done()
    }
  }
  const [a, b] = [new Half(), new Half()]
  a.other = b
  b.other = a
  return [a, b]
}
