import t from 'tap'
import { readCorpus } from './corpus'
import { failure, Finding, fuzz } from './fuzz'
import { targets } from './targets'

// What an answer must be is never written down: each is worked out again by the second implementation.

for (const target of targets) {
  t.test(`the corpus of ${target.name}`, async (t) => {
    const corpus = readCorpus(target.name)
    t.ok(corpus.length >= 10, `${corpus.length} inputs`)
    for (const { name, input } of corpus) t.equal(failure(target, input)?.message, undefined, name)
  })
}

t.test('the same seed makes the same cases', async (t) => {
  for (const target of targets) {
    const made = [7, 7, 8].map((seed) => {
      const inputs: Uint8Array[] = []
      fuzz({ ...target, check: (input) => { inputs.push(input) } }, readCorpus(target.name).map(({ input }) => input), 500, seed)
      return Buffer.concat(inputs)
    })
    t.ok(made[0]?.equals(made[1]!), target.name)
    t.notOk(made[0]?.equals(made[2]!), target.name)
  }
})

function findingOf (check: (input: Uint8Array) => void, patience?: number): Finding | undefined {
  try {
    fuzz({ ...targets[0]!, name: 'planted', check }, [], 10_000, 1, patience)
  } catch (error) {
    if (error instanceof Finding) return error
    throw error
  }
}

t.test('a failing input is made as small as it can be', async (t) => {
  const found = findingOf((input) => { if (input.includes(200)) throw new Error('200 is in it') })
  t.same([...found?.input ?? []], [200])
  t.equal(found?.message, 'planted: 200 is in it')
})

t.test('what does not end is found', async (t) => {
  const found = findingOf((input) => { while (input.includes(200)); }, 2000)
  t.ok(found?.input.includes(200))
  t.equal(found?.message, 'planted: it does not end')
})

t.test('whoever reads past the end, or without an end, is found', async (t) => {
  const [target] = targets
  const reading = (read: (bytes: Uint8Array) => unknown) =>
    failure({ ...target!, check: (input, guard) => { read(guard(input)) } }, Uint8Array.of(1, 2, 3))?.message
  t.equal(reading((bytes) => bytes[2]), undefined)
  t.equal(reading((bytes) => bytes[3]), 'byte 3 of 3 was read')
  t.equal(reading((bytes) => { while (bytes[0] === 1); }), '3 bytes were read again and again')
})
