import { AsyncLocalStorage } from 'node:async_hooks'
import t from 'tap'
import { type Expiry, type Held, Hold, HELD_MAX } from '../../lib/http/hold'

/** A connection that notes that it was reset. */
class Connection {
  resets = 0
  resetAndDestroy (): void { this.resets++ }
}

const soon = () => new Promise((resolve) => setImmediate(resolve))
const fail = (): void => { throw new Error('released by its time-out') }

t.test('one that is released goes on once, and not before its caller is done', async (t) => {
  const hold = new Hold()
  const order: string[] = []
  const held = hold.take(new Connection(), 60_000, fail) as Held
  held.release(() => { order.push('goes on') })
  held.release(() => { order.push('a second time') })
  order.push('released')
  await soon()
  t.same(order, ['released', 'goes on'])
})

t.test('after its time it goes on, and cannot be released any more', async (t) => {
  const timers: Array<{ callback: () => void, milliseconds: number, alive: boolean }> = []
  t.intercept(globalThis, 'setTimeout', {
    value (callback: () => void, milliseconds: number) {
      const timer = { callback, milliseconds, alive: true, unref () { timer.alive = false; return timer } }
      timers.push(timer)
      return timer
    }
  })
  const hold = new Hold()
  const order: string[] = []
  const held = hold.take(new Connection(), 5000, (why) => { order.push(why) }) as Held
  t.match(timers, [{ milliseconds: 5000, alive: false }], 'which keeps no process alive')
  timers[0]!.callback()
  held.release(() => { order.push('released') })
  await soon()
  t.same(order, ['timeout'])
})

t.test('with one too many the oldest goes on', async (t) => {
  const hold = new Hold()
  const order: Array<[number, Expiry]> = []
  const all = Array.from({ length: HELD_MAX }, (_, n) => hold.take(new Connection(), 60_000, (why) => { order.push([n, why]) }) as Held)
  await soon()
  t.same(order, [])
  all[1]!.release(() => {})
  for (let n = HELD_MAX; n < HELD_MAX + 3; n++) all.push(hold.take(new Connection(), 60_000, (why) => { order.push([n, why]) }) as Held)
  await soon()
  t.same(order, [[0, 'evicted'], [2, 'evicted']], 'one has left room')
  for (const held of all) held.release(() => {})
})

t.test('at the end what is held is reset, and nothing is held any more', async (t) => {
  const hold = new Hold()
  const connections = Array.from({ length: 3 }, () => new Connection())
  for (const connection of connections) hold.take(connection, 60_000, fail)
  hold.close()
  await soon()
  t.same(connections.map(({ resets }) => resets), [1, 1, 1])
  const late = new Connection()
  t.equal(hold.take(late, 60_000, fail), undefined)
  t.equal(late.resets, 1)

  // Another application has taken over.
  hold.open()
  const next = new Connection()
  const held = hold.take(next, 60_000, fail)
  t.ok(held)
  held?.release(() => {})
  await soon()
  t.equal(next.resets, 0)
})

t.test('it goes on in the context that it was held in', async (t) => {
  const storage = new AsyncLocalStorage<string>()
  const hold = new Hold()
  const held = storage.run('the connection', () => hold.take(new Connection(), 60_000, fail)) as Held
  const other = storage.run('another', () => hold.take(new Connection(), 60_000, fail)) as Held
  const seen: Array<string | undefined> = []
  storage.run('the search', () => {
    for (const each of [held, other]) each.release(() => { seen.push(storage.getStore()) })
  })
  await soon()
  t.same(seen, ['the connection', 'another'])
})
