import { inspect } from 'node:util'
import { setImmediate } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import t from 'tap'
import { createPrivateMap } from '../../lib/node/private-map'

t.test('a key leads to what was last set for it', async (t) => {
  const map = createPrivateMap<{ nth: number }>()
  const [key, other] = [{}, {}]
  t.equal(map.get(key), undefined)
  const first = { nth: 1 }
  map.set(key, first)
  t.equal(map.get(key), first)
  t.equal(map.get(other), undefined)
  const second = { nth: 2 }
  map.set(key, second)
  t.equal(map.get(key), second)
})

t.test('what is no object leads nowhere', async (t) => {
  const map = createPrivateMap<object>()
  for (const key of [undefined, null, '', 'socket', 0, true, Symbol('key')]) t.equal(map.get(key), undefined, String(key))
})

t.test('maps do not see what others remember of the same key', async (t) => {
  const [one, two] = [createPrivateMap<object>(), createPrivateMap<object>()]
  const key = {}
  const [ofOne, ofTwo] = [{}, {}]
  one.set(key, ofOne)
  t.equal(two.get(key), undefined)
  two.set(key, ofTwo)
  t.equal(one.get(key), ofOne)
  t.equal(two.get(key), ofTwo)
})

t.test('nobody else sees it: not as a property, in no copy, through no proxy, in nothing that inherits', async (t) => {
  const map = createPrivateMap<object>()
  const key = { shown: 1 }
  map.set(key, { hidden: 1 })
  t.same(Reflect.ownKeys(key), ['shown'])
  t.equal(JSON.stringify(key), '{"shown":1}')
  t.equal(inspect(key, { showHidden: true }), '{ shown: 1 }')
  t.equal(map.get({ ...key }), undefined)
  t.equal(map.get(new Proxy(key, {})), undefined)
  t.equal(map.get(Object.create(key)), undefined)
})

t.test('a value goes with its key, and a key is not held by its value', async (t) => {
  setFlagsFromString('--expose-gc')
  const gc = runInNewContext('gc') as () => void
  const map = createPrivateMap<{ of: object }>()
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
