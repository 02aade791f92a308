import { endianness } from 'node:os'
import { formatAddress } from '../address/address'
import { IPPROTO_TCP } from '../kernel/constants'
import { errnoName } from '../kernel/errno'
import type { Capture, openCapture } from '../kernel/libc'
import { decodeSavedSyn, hasSyn, tcpHeaderAt } from '../kernel/tcp-header'
import { createEndpoint } from '../kernel/sockaddr'
import { readSegmentOptions, type SegmentOption } from './segment-options'

// <linux/bpf_common.h>
const LOAD_BYTE = 0x30
const LOAD_HALF = 0x28
const LOAD_HALF_AT_X = 0x48
const HEADER_LENGTH_TO_X = 0xb1
const AND = 0x54
const IF_EQUAL = 0x15
const RETURN = 0x06

// Handshakes that are never taken were not completed.
const KEPT = 4096

/** The segments that complete handshakes on a port, from a packet socket if one can be opened. */
export class Handshakes {
  /** The name of the errno if there is no packet socket; it needs CAP_NET_RAW. */
  refused: string | undefined
  #capture: Capture | undefined
  readonly #endpoint = createEndpoint()
  readonly #seen = new Map<string, SegmentOption[] | undefined>()

  /** `open` opens the packet socket. */
  open (open: typeof openCapture, port: number): void {
    const capture = open(encodeFilter(port))
    if (typeof capture === 'number') this.refused = errnoName(capture)
    else this.#capture = capture
  }

  /** The options of the segment that completed a peer's handshake; `null` if it was not seen. */
  take ({ address, port }: { readonly address: string, readonly port: number | undefined }): SegmentOption[] | null {
    if (this.#capture === undefined) return null
    this.#receive(this.#capture)
    const key = `${address} ${port}`
    const options = this.#seen.get(key)
    this.#seen.delete(key)
    return options ?? null
  }

  /** All segments of a handshake have arrived before its connection is accepted. */
  #receive ({ packet, receive }: Capture): void {
    for (let length = receive(); length > 0; length = receive()) {
      if (!decodeSavedSyn(packet, length, this.#endpoint)) continue
      const key = `${formatAddress(this.#endpoint)} ${this.#endpoint.port}`
      if (hasSyn(packet, tcpHeaderAt(packet, length))) {
        if (this.#seen.size === KEPT) this.#seen.clear()
        this.#seen.set(key, undefined)
      } else if (this.#seen.has(key)) {
        this.#seen.set(key, this.#seen.get(key) ?? readSegmentOptions(packet, length))
      }
    }
  }

  close (): void {
    this.#capture?.close()
  }
}

/** Classic BPF that passes TCP segments to this port if the TCP header directly follows the IP header. */
function encodeFilter (port: number): Uint8Array {
  const v6 = 8
  const pass = 13
  const drop = 14
  const program: Array<[code: number, k: number, yes?: number, no?: number]> = [
    [LOAD_BYTE, 0],
    [AND, 0xf0],
    [IF_EQUAL, 0x40, 3, v6],
    [LOAD_BYTE, 9],
    [IF_EQUAL, IPPROTO_TCP, 5, drop],
    [HEADER_LENGTH_TO_X, 0],
    [LOAD_HALF_AT_X, 2],
    [IF_EQUAL, port, pass, drop],
    [IF_EQUAL, 0x60, 9, drop],
    [LOAD_BYTE, 6],
    [IF_EQUAL, IPPROTO_TCP, 11, drop],
    [LOAD_HALF, 42],
    [IF_EQUAL, port, pass, drop],
    [RETURN, 0xffff],
    [RETURN, 0]
  ]
  // struct sock_filter, <linux/filter.h>: u16 code, u8 jump if true, u8 jump if false, u32 k. Jumps are relative.
  const view = new DataView(new ArrayBuffer(program.length * 8))
  const little = endianness() === 'LE'
  program.forEach(([code, k, yes, no], i) => {
    view.setUint16(i * 8, code, little)
    view.setUint8(i * 8 + 2, (yes ?? i + 1) - i - 1)
    view.setUint8(i * 8 + 3, (no ?? i + 1) - i - 1)
    view.setUint32(i * 8 + 4, k, little)
  })
  return new Uint8Array(view.buffer)
}
