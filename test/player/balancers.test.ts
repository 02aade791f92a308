import t from 'tap'
import { balancers, fill, forgeries, stamp, through, type Balancer } from './balancers'
import { ACK, addressBytes, decodeSegment, FIN, PSH, SYN, type ReceivedSegment } from './packet'
import { Connection, type Handshake } from './player'
import { linuxSynOptions, mss, nop, OPTIONS_MAX, toa, type Option } from './tcp-options'

const server = addressBytes('10.0.0.1')
const client = addressBytes('10.0.0.2')
const ends = { source: client, sourcePort: 40_000, destination: server, destinationPort: 8080 }
const truth = toa(254, '203.0.113.7', 51234)
const forged = toa(254, '198.51.100.1', 1)

const hex = (options: readonly Uint8Array[]) => Buffer.concat(options).toString('hex')

t.test('where a balancer writes TOA, and when not', (t) => {
  const own = linuxSynOptions(1)
  t.equal(hex(stamp(own, truth, 'first')), hex([truth, ...own]))
  t.equal(hex(stamp(own, truth, 'last')), hex([...own, truth]))
  t.equal(hex(stamp([mss(1), nop], truth, 'last')), hex([mss(1), nop, Buffer.alloc(3), truth]), 'after the padding')
  t.equal(hex(stamp(fill(own), truth, 'first')), hex(fill(own)), 'no room')
  t.equal(hex(stamp(fill(own, 32), truth, 'first')), hex([truth, ...fill(own, 32)]), 'just enough room')
  t.equal(hex(stamp(fill(own, 33), truth, 'first')), hex(fill(own, 33)), 'none, once the options are padded')
  t.end()
})

t.test('what a client forges, and each balancer makes of it', (t) => {
  const own = [mss(1460)]
  const expected: Record<keyof typeof forgeries, Record<keyof typeof balancers, string>> = {
    first: { lvs: 'TFm', dpvsBefore196: 'TFm', dpvs: 'Fm', appending: 'FmT' },
    last: { lvs: 'TmF', dpvsBefore196: 'TmF', dpvs: 'mF', appending: 'mFT' },
    'first, and no room left': { lvs: 'Fm...', dpvsBefore196: 'Fm...', dpvs: 'Fm...', appending: 'Fm...' },
    'last, and no room left': { lvs: 'm...F', dpvsBefore196: 'm...F', dpvs: 'm...F', appending: 'm...F' },
    'before the end of the list': { lvs: 'TmF0', dpvsBefore196: 'TmF0', dpvs: 'mF0', appending: 'mF0T' }
  }
  const bytes: Record<string, Option> = {
    T: truth, F: forged, m: mss(1460), 0: Buffer.alloc(4), '...': Buffer.alloc(OPTIONS_MAX - 12, 1)
  }
  for (const [place, forge] of Object.entries(forgeries)) {
    for (const [name, balancer] of Object.entries(balancers)) {
      const { syn } = through(balancer, truth)
      const connection = new Connection(ends, { client: forge(forged, own), syn }, () => {})
      const signs = expected[place as keyof typeof forgeries][name as keyof typeof balancers]
      const wanted = Buffer.concat((signs.match(/\.\.\.|./g) ?? []).map((sign) => bytes[sign] as Option))
      t.equal(decodeSegment(connection.syn)?.options.toString('hex'), wanted.toString('hex'), `forged ${place}, through ${name}`)
    }
  }
  t.end()
})

/** A connection to a server that is played too: what the client sends is collected. */
function converse (handshake: Handshake) {
  const sent: ReceivedSegment[] = []
  const connection = new Connection(ends, handshake, (packet) => {
    sent.push(decodeSegment(Buffer.from(packet)) as ReceivedSegment)
  })
  connection.on('error', () => {})
  connection.start()
  let sequence = 1000
  return {
    connection,
    /** What has been sent since the last call. */
    sent: () => sent.splice(0),
    answer (flags: number, acknowledgment: number, more: Partial<ReceivedSegment> = {}) {
      const payload = more.payload ?? Buffer.alloc(0)
      connection.receiveSegment({
        source: server,
        sourcePort: 8080,
        destination: client,
        destinationPort: 40_000,
        flags,
        sequence,
        acknowledgment,
        window: 60_000,
        options: Buffer.alloc(0),
        ...more,
        payload
      })
      if (more.sequence === undefined) sequence += payload.length + ((flags & (SYN | FIN)) === 0 ? 0 : 1)
    }
  }
}

t.test('which segments are stamped', async (t) => {
  const expected: Record<keyof typeof balancers, string> = {
    lvs: 'SYN ACK data', dpvsBefore196: 'SYN ACK data later', dpvs: 'ACK data later', appending: 'SYN ACK'
  }
  for (const [name, balancer] of Object.entries(balancers) as [keyof typeof balancers, Balancer][]) {
    const { connection, sent, answer } = converse({ client: [], ...through(balancer, truth) })
    const stamped: string[] = []
    const note = (what: string) => sent().forEach(({ options }) => { if (options.equals(truth)) stamped.push(what) })
    const isn = decodeSegment(connection.syn)?.sequence as number
    note('SYN')
    answer(SYN | ACK, isn + 1)
    note('ACK')
    connection.write('data')
    note('data')
    answer(ACK | PSH, isn + 5, { payload: Buffer.from('answer') })
    connection.write('more')
    note('later')
    connection.destroy()
    t.equal(stamped.join(' '), expected[name], name)
  }
})

t.test('no bare ACK: the first data completes the handshake', (t) => {
  const { connection, sent, answer } = converse({ client: [], ack: { skip: true }, data: { options: [truth] } })
  const isn = sent()[0]?.sequence as number
  answer(SYN | ACK, isn + 1)
  t.same(sent(), [])
  connection.write('data')
  t.match(sent(), [{ flags: ACK | PSH, sequence: isn + 1, acknowledgment: 1001, options: truth, payload: Buffer.from('data') }])
  connection.destroy()
  t.end()
})

t.test('the payload of a SYN is sent again as far as the server has not taken it', (t) => {
  for (const [taken, rest] of [[0, 'early'], [3, 'ly'], [5, undefined]] as const) {
    const { connection, sent, answer } = converse({ client: [], syn: { payload: Buffer.from('early') } })
    const isn = sent()[0]?.sequence as number
    answer(SYN | ACK, isn + 1 + taken)
    const [ack, data] = sent()
    t.match(ack, { flags: ACK, sequence: isn + 1 + taken })
    t.equal(data?.payload.toString(), rest)
    connection.destroy()
  }
  t.end()
})

t.test('what comes twice is taken once, what comes too early not yet', (t) => {
  const { connection, sent, answer } = converse({ client: [] })
  const isn = sent()[0]?.sequence as number
  answer(SYN | ACK, isn + 1)
  answer(ACK, isn + 1, { sequence: 1004, payload: Buffer.from('def') })
  answer(ACK, isn + 1, { sequence: 1001, payload: Buffer.from('abc') })
  answer(ACK, isn + 1, { sequence: 1001, payload: Buffer.from('abcdef') })
  answer(ACK | FIN, isn + 1, { sequence: 1007 })
  answer(ACK | FIN, isn + 1, { sequence: 1007 })
  t.same(sent().map(({ acknowledgment }) => acknowledgment), [1001, 1001, 1004, 1007, 1008, 1008])
  const received: Buffer[] = []
  for (let chunk; (chunk = connection.read()) !== null;) received.push(chunk)
  t.equal(String(Buffer.concat(received)), 'abcdef')
  connection.destroy()
  t.end()
})

t.test('no more is in flight than the window has room for', (t) => {
  const { connection, sent, answer } = converse({ client: [] })
  const isn = sent()[0]?.sequence as number
  answer(SYN | ACK, isn + 1, { window: 2000 })
  sent()
  connection.end(Buffer.alloc(3000))
  t.same(sent().map(({ payload }) => payload.length), [1200])
  answer(ACK, isn + 1201, { window: 2000 })
  t.same(sent().map(({ payload, flags }) => [payload.length, flags]), [[1200, ACK | PSH], [600, ACK | PSH], [0, ACK | FIN]])
  connection.destroy()
  t.match(sent(), [{ sequence: isn + 3002 }], 'and a reset, for the server has acknowledged neither the rest nor FIN')
  t.end()
})

t.test('a connection that the client ends first', async (t) => {
  const { connection, sent, answer } = converse({ client: [] })
  const isn = sent()[0]?.sequence as number
  answer(SYN | ACK, isn + 1)
  connection.end()
  answer(ACK, isn + 2)
  answer(ACK | FIN, isn + 2)
  t.equal(await connection.ending(), 'FIN')
  t.same(await connection.receive(Infinity), Buffer.alloc(0))
  t.equal(connection.errored, null)
  t.match(sent(), [{ flags: ACK }, { flags: ACK | FIN }, { flags: ACK, acknowledgment: 1002 }], 'without a reset')
})
