import type { VirtualServer } from '../../types'
import { formatAddress } from '../address/address'
import type { Libc } from './libc'
import { AF_INET, AF_INET6 } from './constants'
import { createEndpoint, decodeIPv4, decodeIPv6, uint16 } from './sockaddr'
import { Optname } from './optname'

// vtoa's public optnames: the first supports only IPv4, the second both families. They return
// { u32 VPC id; be32 address; be16 port } and { u32 VPC id; 16 bytes of address; u16 family; be16 port }.
const VTOA_SO_GET_VS = 1345
const HYBRID_VTOA_SO_GET_VS = 1347
// vtoa's VPC id for connections without one, or whose id was not kept.
const VPC_NOT_KEPT = 0xffffff
const NO_VPC = [0, VPC_NOT_KEPT]

/** Reads a connection's virtual server; `undefined` if vtoa knows none. */
export type VirtualServerReader = (fd: number) => VirtualServer | undefined

export function createVirtualServerReader (libc: Libc): VirtualServerReader {
  const hybrid = new Optname(libc, HYBRID_VTOA_SO_GET_VS)
  const plain = new Optname(libc, VTOA_SO_GET_VS)
  const endpoint = createEndpoint()

  return (fd) => {
    const { bytes } = libc
    let port: number
    if (hybrid.ask(fd) === undefined) {
      const family = new Uint16Array(bytes.buffer, bytes.byteOffset + 20, 1)[0]
      if (family === AF_INET6) decodeIPv6(bytes, 4, endpoint)
      else if (family === AF_INET) decodeIPv4(bytes, 4, endpoint)
      else return undefined
      port = uint16(bytes, 22)
    } else if (plain.ask(fd) === undefined) {
      decodeIPv4(bytes, 4, endpoint)
      port = uint16(bytes, 8)
    } else {
      return undefined
    }
    const vpcId = new Uint32Array(bytes.buffer, bytes.byteOffset, 1)[0] as number
    // A vtoa built with a 32-byte field answers this for kind 249, which needs 40: it kept no virtual server.
    if (vpcId === VPC_NOT_KEPT && (endpoint.w0 | endpoint.w1 | endpoint.w2 | endpoint.w3) === 0) return undefined
    return Object.freeze({
      vpcId: NO_VPC.includes(vpcId) ? undefined : vpcId,
      address: formatAddress(endpoint),
      family: endpoint.family,
      port: port === 0 ? undefined : port
    })
  }
}
