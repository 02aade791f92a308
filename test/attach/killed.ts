// attach or detach, ended by SIGKILL before one of its system calls: node killed.js COMMAND CGROUP CALL [--getpeername]

import { documentFormats } from '../../lib/attach/config'
import { attach, detach } from '../../lib/attach/companion'
import { type Bpf, openBpf } from '../../lib/kernel/libc'
import { dies, faulty } from './faulty'

const bpffs = '/sys/fs/bpf'
const [command, cgroup = '', call, flag] = process.argv.slice(2)
const bpf = faulty(openBpf() as Bpf, Number(call), dies)
if (command === 'attach') {
  attach(bpf, { cgroup, bpffs, version: 'killed', verbose: false, trustedPeers: 'any', formats: documentFormats, getpeername: flag !== undefined })
} else {
  detach(bpf, { cgroup }, bpffs)
}
