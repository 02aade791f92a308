import { inspect } from 'node:util'
import { setImmediate } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { Remembered } from '../../lib/node/remembered'

t.test('a key leads to what was last set for it', async (t) => {
  const map = new Remembered<{ nth: number }>()
  const [key, other] = [{}, {}]
  t.equal(map.of(key), undefined)
  const first = { nth: 1 }
  map.set(key, first)
  t.equal(map.of(key), first)
  t.equal(map.of(other), undefined)
  const second = { nth: 2 }
  map.set(key, second)
  t.equal(map.of(key), second)
})

t.test('what is no object leads nowhere', async (t) => {
  const map = new Remembered<object>()
  for (const key of [undefined, null, '', 'socket', 0, true, Symbol('key')]) t.equal(map.of(key), undefined, String(key))
})

t.test('maps do not see what others remember of the same key', async (t) => {
  const [one, two] = [new Remembered<object>(), new Remembered<object>()]
  const key = {}
  const [ofOne, ofTwo] = [{}, {}]
  one.set(key, ofOne)
  t.equal(two.of(key), undefined)
  two.set(key, ofTwo)
  t.equal(one.of(key), ofOne)
  t.equal(two.of(key), ofTwo)
})

t.test('nobody else sees it: not as a property, in no copy, through no proxy, in nothing that inherits', async (t) => {
  const map = new Remembered<object>()
  const key = { shown: 1 }
  map.set(key, { hidden: 1 })
  t.same(Reflect.ownKeys(key), ['shown'])
  t.equal(JSON.stringify(key), '{"shown":1}')
  t.equal(inspect(key, { showHidden: true }), '{ shown: 1 }')
  t.equal(map.of({ ...key }), undefined)
  t.equal(map.of(new Proxy(key, {})), undefined)
  t.equal(map.of(Object.create(key)), undefined)
})

t.test('a value goes with its key, and a key is not held by its value', async (t) => {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as () => void
  const map = new Remembered<{ of: object }>()
  const values = Array.from({ length: 100 }, () => {
    const key = {}
    const value = { of: key }
    map.set(key, value)
    return new WeakRef(value)
  })
  for (let turn = 0; turn < 10 && values.some((value) => value.deref() !== undefined); turn++) {
    await setImmediate()
    gc()
  }
  t.equal(values.filter((value) => value.deref() !== undefined).length, 0)
})

t.test('what inherits has the value of another, where that has one', async (t) => {
  const map = new Remembered<object>()
  const [socket, session, value] = [{}, {}, {}]
  map.inherit(session, socket)
  t.equal(map.of(session), undefined)
  map.set(socket, value)
  map.inherit(session, socket)
  t.equal(map.of(session), value)
  map.inherit(session, undefined)
  t.equal(map.of(session), value, 'what has none takes nothing away')
})
