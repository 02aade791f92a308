import { constants } from 'node:os'
import Fastify from 'fastify'
import t from 'tap'
import realIp, { type FastifyRealIpOptions, type KernelSource } from 'fastify-real-ip'
import { loadLibc, type Libc } from '../../lib/kernel/libc'
import { kinds, listen } from '../kinds'

// No real socket can be made to fail with each errno of getsockopt(2) and getpeername(2), so that the calls are replaced.

const [http] = kinds
const errnos = ['EBADF', 'EFAULT', 'EINVAL', 'ENOBUFS', 'ENOPROTOOPT', 'ENOTCONN', 'ENOTSOCK'] as const
const sources: KernelSource[] = ['vtoa', 'nat64', 'getpeername']
const policies: Record<string, FastifyRealIpOptions> = {
  'no policy': { sources, virtualServer: true },
  'a list of trustedPeers': { sources, trustedPeers: ['127.0.0.0/8'] }
}

for (const [policy, options] of Object.entries(policies)) {
  t.test(`every call fails: ${policy}`, { skip: process.platform !== 'linux' && 'not Linux' }, async (t) => {
    const libc = loadLibc() as Libc
    const { getsockopt, getpeername } = libc
    let fault = 0
    libc.getsockopt = (fd, level, optname) => fault === 0 ? getsockopt(fd, level, optname) : fault
    libc.getpeername = (fd) => fault === 0 ? getpeername(fd) : fault
    t.teardown(() => Object.assign(libc, { getsockopt, getpeername }))

    for (const name of errnos) {
      const app = Fastify()
      await app.register(realIp, options)
      app.get('/', (request) => request.realAddress)
      t.teardown(() => app.close())
      const port = await listen(app)

      fault = constants.errno[name]
      const during = await http!.connect(port, { localAddress: '127.0.3.1' })
      const answer = await during.get('/')
      const attempts = sources.map((source) => ({ source, reason: name }))
      t.match(answer, { address: '127.0.3.1', port: during.localPort, attempts }, name)
      // The saved SYN is another option, and tells the sender all the same.
      t.match(answer, options.trustedPeers ? { trust: 'trusted' } : { source: 'peer', reason: name === 'ENOTCONN' ? 'closed' : 'no-answer', trust: 'unchecked' })

      fault = 0
      const after = await http!.connect(port, { localAddress: '127.0.3.2' })
      t.match(await after.get('/'), {
        address: '127.0.3.2', port: after.localPort, source: options.trustedPeers ? 'transport-peer' : 'getpeername'
      }, `after ${name}`)
      t.match(await during.get('/'), { address: '127.0.3.1' }, 'and the first keeps its answer')
      await Promise.all([during.close(), after.close()])
      await app.close()
    }
  })
}
