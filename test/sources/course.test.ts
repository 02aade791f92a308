import t from 'tap'
import { Course } from '../../lib/sources/course'

t.test('connections that went the same way share what was attempted', async (t) => {
  const start = new Course(['vtoa', 'getpeername'])
  const none = start.after('ENOPROTOOPT')
  const other = start.after('ESRCH')
  t.equal(start.after('ENOPROTOOPT'), none)
  t.equal(start.after('ESRCH'), other)
  t.same(none.attempts, [{ source: 'vtoa', reason: 'ENOPROTOOPT' }])
  t.same(other.after('EBADF').attempts, [{ source: 'vtoa', reason: 'ESRCH' }, { source: 'getpeername', reason: 'EBADF' }])
  t.same([start.source, none.source, other.after('EBADF').source], ['vtoa', 'getpeername', undefined])
})
