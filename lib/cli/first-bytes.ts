import type { IncomingMessage, Server } from 'node:http'
import type { Socket } from 'node:net'
import { SIGNATURE, TCP_OVER_IPV4, TCP_OVER_IPV6, V1_MAX, V1_START, V2_FIXED } from '../sources/proxy-header'
import { addressText } from './segment-options'
import { endpoint } from './seen'

// Headers in which proxies and CDNs write a client's address.
const headerNames = [
  'forwarded', 'x-forwarded-for', 'x-real-ip', 'x-client-ip', 'x-cluster-client-ip', 'x-original-forwarded-for',
  'true-client-ip', 'cf-connecting-ip', 'fastly-client-ip', 'fly-client-ip', 'ali-cdn-real-ip', 'x-azure-clientip',
  'cloudfront-viewer-address'
]

const signature = Buffer.from(SIGNATURE)
// As much of each version's start as could be HTTP, "PROPFIND" and empty lines: a parser takes it without an error.
const starts = [Buffer.from(V1_START.slice(0, 3)), signature.subarray(0, 4)]

/**
 * Calls `note` once for each connection whose first bytes contain a client's address. Answers bytes that are not HTTP.
 * `senderOf` returns the sender of the packets, if known.
 */
export function noteFirstBytes (
  server: Server,
  note: (socket: object, text: string) => void,
  senderOf: (socket: object) => string | undefined = () => undefined
): void {
  const noted = new WeakSet<object>()
  function once (socket: object, text: string | undefined): void {
    if (text === undefined || noted.has(socket)) return
    noted.add(socket)
    note(socket, text)
  }
  server.on('request', ({ headers, socket }: IncomingMessage) => { once(socket, explainHeaders(headers)) })
  server.on('clientError', (error: Error & { rawPacket?: Buffer }, socket) => {
    const { rawPacket } = error
    if (rawPacket !== undefined) {
      const before = (socket as Socket).bytesRead - rawPacket.length
      once(socket, explainPacket(withStart(rawPacket, before), senderOf(socket)))
    }
    if (socket.writable) socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n')
    else socket.destroy()
  })
}

export function explainHeaders (headers: IncomingMessage['headers']): string | undefined {
  const found = headerNames.filter((name) => headers[name] !== undefined)
  if (found.length === 0) return undefined
  const lines = found.map((name) => `${name}: ${printable(String(headers[name]))}`)
  return `its request has ${lines.join(', ')}. An HTTP proxy or the client itself wrote this: with 'forwarded' the ` +
    'plugin reads it from the listed proxies only.'
}

export function explainPacket (packet: Buffer, sender?: string): string | undefined {
  const proxy = readV1(packet) ?? readV2(packet)
  if (proxy !== undefined) {
    return `it begins with a header of the PROXY protocol, ${proxy}. The balancer sends the client's address there, ` +
      `not in a TCP option. If ${sender ?? 'the transport peer'} is that balancer, read it with sources: ` +
      `['proxy-protocol'], trustedPeers: ['${sender ?? 'ADDRESS'}'], and see all of it with --proxy-protocol ` +
      `--trusted-peers ${sender ?? 'ADDRESS'}`
  }
  if (packet[0] === 0x16 && packet[1] === 3) {
    return 'it begins with TLS, but watch supports only plain HTTP: headers are not visible.'
  }
  return undefined
}

/** A header that came in pieces: the parser has taken `before` bytes of it, and reports the rest. */
function withStart (rest: Buffer, before: number): Buffer {
  for (const start of starts) {
    const whole = Buffer.concat([start.subarray(0, before), rest])
    if (before <= start.length && (readV1(whole) ?? readV2(whole)) !== undefined) return whole
  }
  return rest
}

function readV1 (packet: Buffer): string | undefined {
  const text = packet.toString('latin1', 0, V1_MAX)
  if (!text.startsWith(V1_START)) return undefined
  return `version 1: ${printable((text.split('\r\n', 1) as [string])[0])}`
}

function readV2 (packet: Buffer): string | undefined {
  if (packet.length < V2_FIXED || !packet.subarray(0, signature.length).equals(signature)) return undefined
  const family = packet[13]
  if (family === TCP_OVER_IPV4 && packet.length >= 28) {
    return `version 2, from ${endpoint(addressText(packet, 16, 'IPv4'), packet.readUInt16BE(24))}`
  }
  if (family === TCP_OVER_IPV6 && packet.length >= 52) {
    return `version 2, from ${endpoint(addressText(packet, 16, 'IPv6'), packet.readUInt16BE(48))}`
  }
  return 'version 2, without a TCP address'
}

/** Makes text from the network safe for a terminal. */
const printable = (text: string): string => text.slice(0, 200).replace(/[^\x20-\x7e]/g, '?')
