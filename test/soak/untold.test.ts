import t from 'tap'
import { apps } from './apps'
import type { Connection } from './expect'
import { Untold } from './untold'

const [app, another] = apps as unknown as [typeof apps[number], typeof apps[number]]
const peer = { address: '127.0.0.2', port: 40000 }
const answer = '127.0.0.2 40000 transport-peer untrusted undefined'

function connect (untold: Untold, about: Partial<Connection> = {}): Connection {
  const connection: Connection = { app, peer, claim: undefined, begun: 0, awake: false, leaves: false, round: 0, ...about }
  untold.add(connection)
  return connection
}

t.test('a connection is named by its own end, its claim and its header, of its own server', async (t) => {
  const untold = new Untold()
  const connection = connect(untold, { claim: { address: '20.0.0.1', port: 1 }, header: { address: '21.0.0.1', port: 2 } })
  for (const text of [answer, '20.0.0.1 1 vtoa', '21.0.0.1 2 proxy-protocol']) t.same(untold.named(app, text), [connection], text)
  for (const text of ['127.0.0.2 40001 vtoa', '20.0.0.1 2 vtoa']) t.same(untold.named(app, text), [], text)
  t.same(untold.named(another, answer), [])
  connect(untold, { app: another, header: null })
  t.equal(connection.isShared, undefined)
})

t.test('it is told of once', async (t) => {
  const untold = new Untold()
  const connection = connect(untold)
  t.ok(untold.tell([connection]))
  t.notOk(untold.tell([connection]))
  t.notOk(untold.tell([]))
})

t.test('those of one name share it until all have been told of', async (t) => {
  const untold = new Untold()
  const connections = [connect(untold), connect(untold), connect(untold)]
  t.same(untold.named(app, answer), connections)
  t.same(connections.map(({ isShared }) => isShared), [true, true, true])
  for (let i = 0; i < 3; i++) t.ok(untold.tell(connections))
  const next = connect(untold)
  t.same(untold.named(app, answer), [next])
  t.equal(next.isShared, undefined)
})

t.test('an answer goes to another one where its own can be of none else', async (t) => {
  const untold = new Untold()
  const [a, b, c] = [connect(untold), connect(untold), connect(untold)]
  t.ok(untold.tell([a, b]))
  t.ok(untold.tell([a]), 'the first is of b then')
  t.notOk(untold.tell([b, a]))
  t.ok(untold.tell([b, c]))
  t.notOk(untold.tell([a, b, c]))
  t.same(untold.forget(1), [])
})

t.test('through others', async (t) => {
  const untold = new Untold()
  const [a, b, c] = [connect(untold), connect(untold), connect(untold)]
  t.ok(untold.tell([a, b]))
  t.ok(untold.tell([b, c]))
  t.ok(untold.tell([a, b]))
  t.notOk(untold.tell([a, b, c]))
})

t.test('those that left are told of last', async (t) => {
  const untold = new Untold()
  const left = connect(untold, { leaves: true })
  const [stayed, answered] = [connect(untold), connect(untold, { answered: true })]
  const all = [left, stayed, answered]
  t.ok(untold.tell(all))
  t.ok(untold.tell(all))
  t.same(untold.forget(1), [left])
})

t.test('they are forgotten by round', async (t) => {
  const untold = new Untold()
  const [old, young] = [connect(untold, { round: 1, claim: { address: '20.0.0.1', port: 1 } }), connect(untold, { round: 2 })]
  t.same(untold.forget(1), [])
  t.same(untold.forget(2), [old], 'once, whatever its names')
  t.same(untold.forget(2), [])
  t.same(untold.named(app, answer), [young])
  t.same(untold.named(app, '20.0.0.1 1 vtoa'), [])
})
