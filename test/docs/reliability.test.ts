import t from 'tap'
import { readPage } from './markdown'
import { writeReliability } from './reliability'

t.test('docs/reliability.md is what the long runs wrote down', async (t) => {
  const { text } = readPage('docs/reliability.md')
  t.equal(text, writeReliability(), 'npm run docs:reliability')
})
