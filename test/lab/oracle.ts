import type { ChildProcess, SpawnOptions } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import type { Protocol } from './speak'
import type { Stamp } from './stamp'

export interface Claim { readonly address: string, readonly port?: number }

/** How to ask, and what is right. The server answers with JSON `{ realIp, port, source }`. */
export interface OracleAsk {
  /** default '/whoami' */
  readonly path?: string
  /** default 'stamped', what the client was set to claim when the connection was made; 'peer' is the connection's own end; either, while the module comes and goes */
  readonly expect?: 'stamped' | 'peer' | 'stamped-or-peer' | Claim
  /** not checked by default */
  readonly source?: string
  /** on each connection, one after the other; default 1 */
  readonly requests?: number
  /** what becomes of each connection; default 'end' */
  readonly then?: Ending
  /** connections at work at the same time, default 64 */
  readonly concurrency?: number
  /** default 30000; what is not done by then is an error */
  readonly timeout?: number
}

export type Ending = 'keep' | 'end' | 'reset'

/** New connections. */
export interface OracleRun extends OracleAsk {
  readonly port: number
  /** default '127.0.0.1' */
  readonly host?: string
  /** default 'http' */
  readonly protocol?: Protocol
  /** default 1 */
  readonly connections?: number
  /** reset every connection here: as soon as connected, between the two halves of the TLS handshake, or with a request sent */
  readonly abandon?: 'connect' | 'tls' | 'request'
}

/** Connections kept by an earlier run. */
export interface OracleAgain extends OracleAsk {
  /** how many, the oldest first; default all */
  readonly count?: number
}

export interface OracleTally {
  connections: number
  answers: number
  right: number
  wrong: number
  errors: number
  abandoned: number
  /** answers by their `source` */
  sources: Record<string, number>
  /** the first few wrong answers */
  samples: Array<{ localPort: number, expected: Claim[], got: unknown }>
  /** the first few errors */
  messages: string[]
}

/** Runs may overlap. */
export interface Oracle {
  run (options: OracleRun): Promise<OracleTally>
  /** asks on connections that were kept, and by default keeps them */
  again (options?: OracleAgain): Promise<OracleTally>
  /** closes connections that were kept, asking nothing; resolves when they are closed, with their number */
  drop (options?: { count?: number, by?: 'end' | 'reset' }): Promise<number>
  close (): Promise<void>
}

/** What goes to the child. It works out each connection's claim from `stamp` and the local port. */
export type OracleOrder =
  | { id: number, order: 'run', options: OracleRun, stamp: Stamp | null }
  | { id: number, order: 'again', options: OracleAgain }

export interface OracleReport { id: number, tally: OracleTally }

type Unnumbered = OracleOrder extends infer Order ? Order extends unknown ? Omit<Order, 'id'> : never : never
interface Waiting { resolve (tally: OracleTally): void, reject (error: Error): void }
type Spawn = (command: string, args: readonly string[], options: SpawnOptions) => ChildProcess

export function openOracle (spawn: Spawn, currentStamp: () => Stamp | null): Oracle {
  const child = spawn(process.execPath, [join(__dirname, 'oracle-client.js')], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
  const waiting = new Map<number, Waiting>()
  const ended = once(child, 'exit')
  let orders = 0

  child.on('message', (report: OracleReport) => {
    waiting.get(report.id)?.resolve(report.tally)
    waiting.delete(report.id)
  })
  child.on('exit', (code, signal) => {
    for (const { reject } of waiting.values()) reject(new Error(`the oracle ended with ${signal ?? code}`))
    waiting.clear()
  })

  function obey (order: Unnumbered): Promise<OracleTally> {
    const id = ++orders
    return new Promise((resolve, reject) => {
      waiting.set(id, { resolve, reject })
      child.send({ id, ...order }, error => {
        if (error !== null) reject(error)
      })
    })
  }

  return {
    run: options => obey({ order: 'run', options, stamp: currentStamp() }),
    again: (options = {}) => obey({ order: 'again', options }),
    async drop ({ count, by = 'end' } = {}) {
      const { connections } = await obey({ order: 'again', options: { requests: 0, then: by, ...count === undefined ? {} : { count } } })
      return connections
    },
    async close () {
      if (child.connected) child.disconnect()
      await ended
    }
  }
}
