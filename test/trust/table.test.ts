import fc from 'fast-check'
import t from 'tap'
import { createEndpoint } from '../../lib/kernel/sockaddr'
import { isLoopback, isPlausible } from '../../lib/trust/plausible'
import { applySettings, columnOf, table } from '../../lib/trust/table'
import { addressOf, anyAddress, numRuns, type Plain, textOf, unmapped, within } from './plain'

t.setTimeout(0)

const network = (family: 'IPv4' | 'IPv6', value: bigint, prefix: number) => [{ family, value }, prefix] as const
const loopback = [network('IPv4', 0x7f000000n, 8), network('IPv6', 1n, 128)]
const impossible = [
  network('IPv4', 0n, 8), network('IPv4', 0xe0000000n, 4), network('IPv4', 0xffffffffn, 32),
  network('IPv6', 0n, 96), network('IPv6', 0xff00n << 112n, 8)
]
const isIn = (list: typeof loopback, address: Plain) => list.some(([network, prefix]) => within(address, network, prefix))

function plainColumn (claim: Plain | undefined, port: number, peer: Plain | undefined, peerPort: number): string {
  if (claim === undefined) return 'absent'
  if (peer !== undefined && textOf(peer) === textOf(claim) && port === peerPort) return 'absent'
  if (isIn(loopback, claim)) return peer !== undefined && isIn(loopback, peer) ? 'plausible' : 'implausible'
  return isIn(impossible, claim) ? 'implausible' : 'plausible'
}

const endpoint = (address: Plain, port: number) => ({ ...createEndpoint(), ...addressOf(address), port })

// Sources unmap what they read.
const address = anyAddress.map(unmapped)
const port = fc.constantFrom(0, 1, 80, 65535)

t.test('the column of a claim is what a plain search through the list of impossible addresses finds', async () => {
  const peers = fc.option(address, { nil: undefined })
  fc.assert(fc.property(fc.option(address, { nil: undefined, freq: 20 }), port, peers, port, fc.boolean(), (claim, port, stranger, peerPort, same) => {
    const peer = same && claim !== undefined ? claim : stranger
    const column = columnOf(claim && endpoint(claim, port), peer && endpoint(peer, peerPort))
    const expected = plainColumn(claim, port, peer, peerPort)
    if (column !== expected) throw new Error(`${claim && textOf(claim)} of ${peer && textOf(peer)}: ${column} instead of ${expected}`)
    if (claim !== undefined && isPlausible(addressOf(claim), undefined) !== (plainColumn(claim, 1, undefined, 0) === 'plausible')) throw new Error(textOf(claim))
  }), { numRuns })
})

// Whose address, trust, reason; the setting that may reject instead; whose address under 'believe'; whether a walk starts there.
const untrusted = ['peer', 'untrusted', 'untrusted-peer', 'untrusted', undefined, true]
const unverified = ['none', 'unverified', 'unverified-peer', 'unverified', 'source']
const cells = {
  'unset, absent': ['source', 'unchecked'],
  'unset, local': ['peer', 'unchecked'],
  'unset, plausible': ['source', 'unchecked'],
  'unset, implausible': ['peer', 'unchecked', 'implausible'],
  'unset, ambiguous': ['peer', 'unchecked', 'ambiguous'],
  'unset, fault': ['none', 'unchecked', undefined, true],
  'any, absent': ['peer', 'trusted', 'no-toa', undefined, undefined, true],
  'any, local': ['peer', 'trusted', 'proxy-local'],
  'any, plausible': ['source', 'trusted', undefined, undefined, undefined, true],
  'any, implausible': ['peer', 'trusted', 'implausible', 'invalid'],
  'any, ambiguous': ['peer', 'trusted', 'ambiguous', 'invalid'],
  'any, fault': ['none', 'trusted', undefined, true],
  'listed, absent': ['peer', 'trusted', 'no-toa', 'missing'],
  'listed, local': ['peer', 'trusted', 'proxy-local'],
  'listed, plausible': ['source', 'trusted', undefined, undefined, undefined, true],
  'listed, implausible': ['peer', 'trusted', 'implausible', 'invalid'],
  'listed, ambiguous': ['peer', 'trusted', 'ambiguous', 'invalid'],
  'listed, fault': ['none', 'trusted', undefined, true],
  'unlisted, absent': ['peer', 'untrusted', undefined, undefined, undefined, true],
  'unlisted, local': ['peer', 'untrusted', undefined, undefined, undefined, true],
  'unlisted, plausible': untrusted,
  'unlisted, implausible': untrusted,
  'unlisted, ambiguous': untrusted,
  'unlisted, fault': ['none', 'untrusted', undefined, true],
  'unknown, absent': unverified,
  'unknown, local': unverified,
  'unknown, plausible': unverified,
  'unknown, implausible': ['none', 'unverified', 'implausible', 'unverified'],
  'unknown, ambiguous': ['none', 'unverified', 'ambiguous', 'unverified'],
  'unknown, fault': ['none', 'unverified', undefined, true],
  'unix, absent': ['none', 'untrusted', 'no-address', undefined, undefined, true],
  'unix, local': ['none', 'trusted', 'proxy-local'],
  'unix, plausible': ['source', 'trusted', undefined, undefined, undefined, true],
  'unix, implausible': ['none', 'trusted', 'implausible', 'invalid'],
  'unix, ambiguous': ['none', 'trusted', 'ambiguous', 'invalid'],
  'unix, fault': ['none', 'trusted', undefined, true]
}

t.test('each cell, as docs/trust.md has it', async (t) => {
  const found = Object.entries(table).flatMap(([row, columns]) => Object.entries(columns).map(([column, cell]) => {
    const { address, trust, reason, setting, believe, forwards, ...rest } = cell
    t.same(rest, {})
    return [`${row}, ${column}`, [address, trust, reason, setting, believe, forwards]]
  }))
  t.same(Object.fromEntries(found), Object.fromEntries(Object.entries(cells).map(([name, cell]) => [name, [...cell, ...Array(6 - cell.length).fill(undefined)]])))
})

t.test('what the settings make of each cell', async (t) => {
  for (const value of ['ignore', 'reject', 'believe'] as const) {
    for (const setting of ['untrusted', 'missing', 'invalid', 'unverified'] as const) {
      const ignore = { untrusted: 'ignore', missing: 'ignore', invalid: 'ignore', unverified: 'ignore' } as const
      const rulings = applySettings({ ...ignore, [setting]: value }, false)
      for (const [row, columns] of Object.entries(table)) {
        for (const [column, cell] of Object.entries(columns)) {
          const isSet = cell.setting === setting
          t.same(rulings[row as keyof typeof rulings][column as keyof typeof columns], {
            address: isSet && value === 'believe' && cell.believe !== undefined ? 'source' : cell.address,
            trust: cell.trust,
            reason: cell.reason,
            forwards: cell.forwards ?? false,
            rejects: cell.setting === true || (isSet && value === 'reject')
          }, `${setting}: ${value}; ${row}, ${column}`)
        }
      }
    }
  }
})

t.test('where PROXY headers are read, untrusted: reject is for all connections of an untrusted peer', async (t) => {
  for (const untrusted of ['ignore', 'reject'] as const) {
    const settings = { untrusted, missing: 'ignore', invalid: 'ignore', unverified: 'ignore' } as const
    const [without, reading] = [applySettings(settings, false), applySettings(settings, true)]
    t.same({ ...reading, unlisted: without.unlisted }, without, 'no other row changes')
    const rejects = Object.entries(reading.unlisted).map(([column, ruling]) => [column, ruling.rejects, ruling.reason])
    t.same(Object.fromEntries(rejects.map(([column, rejects]) => [column, rejects])), untrusted === 'reject'
      ? { absent: true, local: true, plausible: true, implausible: true, ambiguous: true, fault: true }
      : { absent: false, local: false, plausible: false, implausible: false, ambiguous: false, fault: true })
    if (untrusted === 'reject') t.same(reading.unlisted.absent, { address: 'peer', trust: 'untrusted', reason: 'untrusted-peer', forwards: true, rejects: true })
  }
})

t.test('what holds of every cell', async (t) => {
  for (const [row, cells] of Object.entries(table)) {
    for (const [column, cell] of Object.entries(cells)) {
      const name = `${row}, ${column}`
      // 'trusted' needs a known transport peer, 'any', or what a Unix-domain socket's header says.
      if (row === 'unix') t.equal(cell.trust === 'trusted', column !== 'absent', name)
      else t.equal(cell.trust === 'trusted', row === 'any' || row === 'listed', name)
      t.equal(cell.trust === 'unchecked', row === 'unset', name)
      // None that cannot be true gives the claim.
      if (column === 'implausible' || column === 'ambiguous' || column === 'fault') {
        t.notOk(cell.address === 'source' || 'believe' in cell, name)
      }
      // What is not trusted starts no walk, but for a peer that is known and not in the list, or that has no address. Nor
      // does a trusted peer that fell back to itself, unless all are trusted.
      if (cell.forwards === true) {
        t.ok(row === 'unlisted' || (row === 'unix' && column === 'absent') ||
          (cell.trust === 'trusted' && (cell.reason === undefined || (row === 'any' && cell.reason === 'no-toa'))), name)
      }
      // A missing or wrong PROXY header is always the end.
      t.equal(cell.setting === true, column === 'fault', name)
      if (row === 'unset' && column !== 'fault') t.equal(cell.setting, undefined, name)
      if (row === 'unlisted' && column !== 'fault') t.equal(cell.address, 'peer', name)
    }
  }
})

t.test('a swapped list gives another answer only with another trust', async (t) => {
  for (const [column, { address, trust, reason }] of Object.entries(table.any)) t.match(table.listed[column as keyof typeof table.any], { address, trust, reason })
})

t.test('loopback is a claim only where the transport peer is loopback itself', async (t) => {
  for (const [family, own, stranger] of [['IPv4', 0x7f000001n, 0x0a000002n], ['IPv6', 1n, 1n << 125n]] as const) {
    const [claim, peer] = [endpoint({ family, value: own }, 1), endpoint({ family, value: stranger }, 2)]
    t.ok(isLoopback(claim))
    t.notOk(isLoopback(peer))
    t.equal(columnOf(claim, { ...claim, port: 2 }), 'plausible')
    t.equal(columnOf(claim, peer), 'implausible')
    t.equal(columnOf(claim, undefined), 'implausible')
  }
})

t.test('what only looks like loopback, or like ::/96', async (t) => {
  for (const word of ['w0', 'w1', 'w2'] as const) {
    const address = { ...addressOf({ family: 'IPv6', value: 1n }), [word]: 1 }
    t.notOk(isLoopback(address), word)
    t.ok(isPlausible(address, undefined), word)
  }
})
