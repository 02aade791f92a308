import { statSync, truncateSync } from 'node:fs'
import path from 'node:path'
import t from 'tap'
import { kinds } from '../kinds'
import { namespaceUnavailable } from '../player/namespace'
import { start } from './start'

const [http] = kinds
const SIZE = 16384
// As in test-in-namespace.ts: where it is required it fails instead.
const missing = process.env.FASTIFY_REAL_IP_LAB === 'required' ? undefined : namespaceUnavailable()

t.test('the disk under the logger is full', { skip: missing ?? false }, async (t) => {
  const folder = t.testdir()
  // A mount of the server alone, which ends with it.
  const mounted = `mount -t tmpfs -o size=${SIZE} none "$0" && exec "$@"`
  const flags = process.getuid?.() === 0 ? ['-m'] : ['-Urm']
  const { port, pid, end } = await start(t, { log: path.join(folder, 'log') }, ['unshare', ...flags, '--', 'sh', '-c', mounted, folder])
  const log = path.join(`/proc/${pid}/root`, folder, 'log')
  const client = await http!.connect(port, { localAddress: '127.0.7.1' })
  for (let n = 0; n < 1000 && (await client.get('/failures')).length === 0; n++) t.match(await client.get('/'), { address: '127.0.7.1' })
  t.same(await client.get('/failures'), ['ENOSPC'])
  t.equal(statSync(log).size, SIZE)
  for (let n = 2; n <= 20; n++) {
    const other = await http!.connect(port, { localAddress: `127.0.7.${n}` })
    t.match(await other.get('/'), { address: `127.0.7.${n}`, port: other.localPort, source: 'getpeername' })
    await other.close()
  }
  t.match(await client.get('/'), { address: '127.0.7.1', port: client.localPort })
  await client.close()

  // pino has the process wait at its end until there is room.
  truncateSync(log)
  t.equal(await end(), 0)
})
