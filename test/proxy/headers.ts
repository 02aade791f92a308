import type { ProxyProtocol } from 'fastify-real-ip'
import type { ProxyFault } from '../../lib/sources/proxy-header'
import { plainCrc32c } from '../sources/plain-proxy'

// PROXY headers, good and bad, for the tests of the decoder and of servers. Written by hand: no encoder has a part in it.

export interface GoodHeader {
  readonly name: string
  readonly bytes: Buffer
  readonly version: 1 | 2
  /** The client, `[address, port]`; undefined where the header names none. */
  readonly source: readonly [address: string, port: number] | undefined
  readonly destination: readonly [address: string, port: number] | undefined
  /** What its TLVs say; `{ tlvs: [] }` where there are none. */
  readonly said: Omit<ProxyProtocol, 'version' | 'local' | 'destination'>
}

export interface BadHeader {
  readonly name: string
  readonly bytes: Buffer
  readonly reason: ProxyFault['reason']
  /** The first wrong byte. */
  readonly at: number
}

type End = readonly [address: string, port: number]

const client: End = ['203.0.113.7', 51234]
const server: End = ['198.51.100.1', 443]
const client6: End = ['2001:db8::7', 51234]
const server6: End = ['2001:db8:1::1', 443]

const nothing = { tlvs: [] }

function text (name: string, line: string, source?: End, destination?: End): GoodHeader {
  return { name: `v1 ${name}`, bytes: Buffer.from(`${line}\r\n`, 'latin1'), version: 1, source, destination, said: nothing }
}

const hex = (...parts: string[]) => Buffer.from(parts.join('').replaceAll(' ', ''), 'hex')

export const SIGNATURE = '0d0a0d0a000d0a515549540a'
/** 203.0.113.7:51234 to 198.51.100.1:443, and the same for IPv6. */
const IPV4 = 'cb007107 c6336401 c822 01bb'
const IPV6 = '20010db8000000000000000000000007 20010db8000100000000000000000001 c822 01bb'
const MAPPED = '00000000000000000000ffffcb007107 00000000000000000000ffffc6336401 c822 01bb'

/** A header of version 2 with this body. */
function binary (commandAndFamily: string, ...body: string[]): Buffer {
  const content = hex(...body)
  return Buffer.concat([hex(SIGNATURE, commandAndFamily, content.length.toString(16).padStart(4, '0')), content])
}

function tlv (type: number, value: string | Buffer): string {
  const bytes = typeof value === 'string' ? Buffer.from(value) : value
  return Buffer.concat([Buffer.of(type, bytes.length >> 8, bytes.length & 255), bytes]).toString('hex')
}

const CHECKSUM = '030004 00000000'

/** The same header with the right checksum, where it has CHECKSUM. */
function summed (header: Buffer): Buffer {
  const at = header.indexOf(hex(CHECKSUM)) + 3
  const copy = Buffer.from(header)
  copy.write(plainCrc32c(header), at, 'hex')
  return copy
}

function good (name: string, bytes: Buffer, source?: End, destination?: End, said: GoodHeader['said'] = nothing): GoodHeader {
  return { name: `v2 ${name}`, bytes, version: 2, source, destination, said }
}

const over = (name: string, tlvs: string, said: GoodHeader['said']): GoodHeader => good(name, binary('2111', IPV4, tlvs), client, server, said)

const longest6 = 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'

export const goodHeaders: readonly GoodHeader[] = [
  text('TCP4', 'PROXY TCP4 203.0.113.7 198.51.100.1 51234 443', client, server),
  text('TCP6', 'PROXY TCP6 2001:db8::7 2001:db8:1::1 51234 443', client6, server6),
  text('TCP4, ports 0 and 65535', 'PROXY TCP4 203.0.113.7 198.51.100.1 0 65535', ['203.0.113.7', 0], ['198.51.100.1', 65535]),
  text('TCP4, the longest', 'PROXY TCP4 203.113.113.107 198.151.100.101 51234 65535', ['203.113.113.107', 51234], ['198.151.100.101', 65535]),
  text('TCP6, the longest', `PROXY TCP6 ${longest6.replace('ffff', '2001')} ${longest6} 51234 65535`,
    [longest6.replace('ffff', '2001'), 51234], [longest6, 65535]),
  text('TCP6 in capitals, in full', 'PROXY TCP6 2001:0DB8:0:0:0:0:0:0007 2001:DB8:1:0::1 51234 443', client6, server6),
  text('TCP6, IPv4-mapped', 'PROXY TCP6 ::ffff:203.0.113.7 ::ffff:c633:6401 51234 443', client, server),
  text('UNKNOWN', 'PROXY UNKNOWN'),
  text('UNKNOWN, 107 bytes', `PROXY UNKNOWN ${longest6} ${longest6} 65535 65535`),
  text('UNKNOWN with text behind', 'PROXY UNKNOWN what\0ever \t\xff'),
  good('TCP over IPv4', binary('2111', IPV4), client, server),
  good('UDP over IPv4', binary('2112', IPV4), client, server),
  good('TCP over IPv6', binary('2121', IPV6), client6, server6),
  good('UDP over IPv6', binary('2122', IPV6), client6, server6),
  good('TCP over IPv6, IPv4-mapped', binary('2121', MAPPED), client, server),
  good('LOCAL', binary('2000')),
  good('LOCAL with addresses', binary('2011', IPV4)),
  good('LOCAL of no known family, with anything', binary('2041', 'ff'.repeat(23))),
  good('LOCAL, the health check of AWS', hex(SIGNATURE, '20 11 0054 030004bce5951f 04004a', '00'.repeat(74))),
  good('UNSPEC', binary('2100')),
  good('UNSPEC with anything', binary('2100', '03 ff')),
  good('UNIX stream', binary('2131', '2f746d702f61'.padEnd(216, '0'), '2f746d702f62'.padEnd(216, '0'))),
  good('UNIX datagram with a TLV', binary('2132', '00'.repeat(216), tlv(2, 'a.example')), undefined, undefined, { authority: 'a.example', tlvs: [] }),
  over('ALPN, authority, unique id and namespace', tlv(1, 'h2') + tlv(2, 'bücher.example') + tlv(5, Buffer.of(0, 1, 254, 255)) + tlv(0x30, 'blue'),
    { alpn: 'h2', authority: 'bücher.example', uniqueId: '0001feff', netns: 'blue', tlvs: [] }),
  over('TLS with a verified certificate', tlv(0x20, hex('03 00000000', tlv(0x21, 'TLSv1.3'), tlv(0x22, 'client.example'),
    tlv(0x23, 'TLS_AES_256_GCM_SHA384'), tlv(0x24, 'RSA-SHA256'), tlv(0x25, 'RSA2048'), tlv(0x26, 'X25519'),
    tlv(0x27, 'rsa_pss_rsae_sha256'), tlv(0x28, hex('3003020101')), tlv(0x2f, 'new'))), {
    ssl: {
      client: 3,
      verified: true,
      version: 'TLSv1.3',
      commonName: 'client.example',
      cipher: 'TLS_AES_256_GCM_SHA384',
      signatureAlgorithm: 'RSA-SHA256',
      keyAlgorithm: 'RSA2048',
      group: 'X25519',
      signatureScheme: 'rsa_pss_rsae_sha256',
      certificate: '3003020101',
      tlvs: [{ type: 0x2f, value: '6e6577' }]
    },
    tlvs: []
  }),
  over('TLS without a certificate, as HAProxy writes it', tlv(0x20, hex('01 00000000', tlv(0x21, 'TLSv1.2'))),
    { ssl: { client: 1, verified: false, version: 'TLSv1.2', tlvs: [] }, tlvs: [] }),
  over('TLS with a certificate of the session that was not verified', tlv(0x20, hex('05 00000012')),
    { ssl: { client: 5, verified: false, tlvs: [] }, tlvs: [] }),
  good('the VPC endpoint of AWS, with a checksum', summed(binary('2111', IPV4, CHECKSUM, tlv(0xea, '\x01vpce-08d2bf15fac5001c9'), tlv(4, Buffer.alloc(20)))),
    client, server, { awsVpceId: 'vpce-08d2bf15fac5001c9', tlvs: [] }),
  over('Alibaba Cloud PrivateLink', tlv(0xe1, '\x01vpc-a') + tlv(0xe1, '\x02ep-b') + tlv(0xe1, '\x03epsrv-c') + tlv(0xe1, '\x04d') + tlv(0xe1, ''), {
    alibabaVpcId: 'vpc-a', alibabaEndpointId: 'ep-b', alibabaEndpointServiceId: 'epsrv-c', tlvs: [{ type: 0xe1, value: '0464' }, { type: 0xe1, value: '' }]
  }),
  good('the link of Azure', binary('2121', IPV6, 'ee0005 01 c1450021'), client6, server6, { azureLinkId: 0x210045c1, tlvs: [] }),
  over('the connection of GCP Private Service Connect', 'e00008 ffffffffc0a86402', { gcpPscConnectionId: '18446744072646845442', tlvs: [] }),
  over('TLVs that are unknown, repeated or not what they should be',
    tlv(0, '') + tlv(1, 'h2') + tlv(1, 'h3') + tlv(2, hex('ff')) + tlv(0xea, '\x02x') + tlv(0xee, '\x01abc') + tlv(0xe0, 'short') + tlv(0x20, hex('01000000')) +
    tlv(0x20, hex('01 00000000 21 0009 54')) + tlv(0x20, hex('01 00000000 21 00')) + tlv(0xf7, 'mine'), {
      alpn: 'h2',
      tlvs: [
        { type: 0, value: '' }, { type: 1, value: '6833' }, { type: 2, value: 'ff' }, { type: 0xea, value: '0278' }, { type: 0xee, value: '01616263' },
        { type: 0xe0, value: '73686f7274' }, { type: 0x20, value: '01000000' }, { type: 0x20, value: '010000000021000954' }, { type: 0x20, value: '01000000002100' }, { type: 0xf7, value: '6d696e65' }
      ]
    }),
  over('TLS with a name that is not UTF-8', tlv(0x20, hex('03 00000000', tlv(0x22, hex('c3')), tlv(0x22, 'a'), tlv(0x22, 'b'))),
    { ssl: { client: 3, verified: true, commonName: 'a', tlvs: [{ type: 0x22, value: 'c3' }, { type: 0x22, value: '62' }] }, tlvs: [] }),
  over('padding', tlv(4, '') + tlv(4, 'ignored'), nothing),
  good('4,096 bytes, with a checksum at the end', summed(binary('2111', IPV4, tlv(4, Buffer.alloc(4096 - 16 - 12 - 7 - 3, 0x55)), CHECKSUM)), client, server),
  good('port 0', binary('2111', 'cb007107 c6336401 0000 0000'), ['203.0.113.7', 0], ['198.51.100.1', 0])
]

const bad = (name: string, bytes: Buffer, at: number, reason: BadHeader['reason'] = 'proxy-malformed'): BadHeader => ({ name, bytes, reason, at })
const badText = (name: string, line: string, at: number, reason?: BadHeader['reason']) => bad(`v1 ${name}`, Buffer.from(`${line}\r\n`, 'latin1'), at, reason)
const badBinary = (name: string, bytes: Buffer, at: number, reason?: BadHeader['reason']) => bad(`v2 ${name}`, bytes, at, reason)

const wrongSum = summed(binary('2111', IPV4, CHECKSUM))
wrongSum[20] = 0

export const badHeaders: readonly BadHeader[] = [
  bad('HTTP/1', Buffer.from('GET / HTTP/1.1\r\nHost: a.example\r\n\r\n'), 0, 'proxy-missing'),
  bad('HTTP/2', Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), 2, 'proxy-missing'),
  bad('HTTP/1, a method that begins alike', Buffer.from('PROPFIND / HTTP/1.1\r\nHost: a.example\r\n\r\n'), 3, 'proxy-missing'),
  bad('TLS', hex('160301020001000001fc0303', '00'.repeat(32)), 0, 'proxy-missing'),
  bad('empty lines before HTTP/1', Buffer.from('\r\n\r\nGET / HTTP/1.1\r\n\r\n'), 4, 'proxy-missing'),
  badText('in small letters', 'proxy TCP4 203.0.113.7 198.51.100.1 51234 443', 0, 'proxy-missing'),
  badText('with a tab', 'PROXY\tTCP4 203.0.113.7 198.51.100.1 51234 443', 5, 'proxy-missing'),
  badText('TCP5', 'PROXY TCP5 203.0.113.7 198.51.100.1 51234 443', 9),
  badText('tcp4', 'PROXY tcp4 203.0.113.7 198.51.100.1 51234 443', 6),
  badText('TCP4 alone', 'PROXY TCP4', 10),
  badText('UNKNOWNX', 'PROXY UNKNOWNX', 13),
  badText('01.2.3.4', 'PROXY TCP4 01.2.3.4 198.51.100.1 51234 443', 11),
  badText('256', 'PROXY TCP4 203.0.113.7 198.51.256.1 51234 443', 23),
  badText('port 65536', 'PROXY TCP4 203.0.113.7 198.51.100.1 65536 443', 36),
  badText('port 080', 'PROXY TCP4 203.0.113.7 198.51.100.1 51234 080', 42),
  badText('port +80', 'PROXY TCP4 203.0.113.7 198.51.100.1 51234 +80', 42),
  badText('a zone', 'PROXY TCP6 fe80::7%eth0 2001:db8:1::1 51234 443', 18),
  badText('TCP6 with an IPv4 address', 'PROXY TCP6 203.0.113.7 198.51.100.1 51234 443', 11),
  badText('TCP4 with an IPv6 address', 'PROXY TCP4 2001:db8::7 198.51.100.1 51234 443', 15),
  badText('a field too few', 'PROXY TCP4 203.0.113.7 198.51.100.1 51234', 41),
  badText('a field too many', 'PROXY TCP4 203.0.113.7 198.51.100.1 51234 443 1', 47),
  badText('two spaces', 'PROXY TCP4 203.0.113.7  198.51.100.1 51234 443', 46),
  badText('a space at the end', 'PROXY TCP4 203.0.113.7 198.51.100.1 51234 443 ', 46),
  bad('v1 LF alone', Buffer.from('PROXY TCP4 203.0.113.7 198.51.100.1 51234 443\nGET / HTTP/1.1\r\n\r\n'), 45),
  bad('v1 UNKNOWN, LF alone', Buffer.from('PROXY UNKNOWN a\nGET / HTTP/1.1\r\n\r\n'), 15),
  bad('v1 CR alone', Buffer.from('PROXY TCP4 203.0.113.7 198.51.100.1 51234 443\rGET / HTTP/1.1\r\n\r\n'), 46),
  badText('108 bytes', `PROXY UNKNOWN ${longest6} ${longest6} 65535 655350`, 105, 'proxy-too-long'),
  badText('without an end', `PROXY TCP4 ${'1'.repeat(200)}`, 105, 'proxy-too-long'),
  badBinary('a signature with another end', hex(SIGNATURE.replace(/0a$/, '0d'), '2111 000c', IPV4), 11, 'proxy-missing'),
  badBinary('version 1', binary('1111', IPV4), 12),
  badBinary('version 3', binary('3111', IPV4), 12),
  badBinary('command 2', binary('2211', IPV4), 12),
  badBinary('0x13, no transport protocol', binary('2113', IPV4), 13),
  badBinary('0x41, no address family', binary('2141', IPV4), 13),
  badBinary('0x10, an address family alone', binary('2110', IPV4), 13),
  badBinary('0x01, a transport protocol alone', binary('2101', IPV4), 13),
  badBinary('IPv4, length 11', binary('2111', IPV4.slice(0, -2)), 14),
  badBinary('IPv4, length 0 (CVE-2019-14243)', binary('2112'), 14),
  badBinary('IPv6, length 35', binary('2121', IPV6.slice(0, -2)), 14),
  badBinary('UNIX, length 215', binary('2131', '00'.repeat(215)), 14),
  badBinary('a TLV that overruns', binary('2111', IPV4, tlv(1, 'h2'), '020009 61'), 34),
  badBinary('one byte of a TLV', binary('2111', IPV4, '04'), 28),
  badBinary('two bytes of a TLV', binary('2121', IPV6, '0400'), 52),
  badBinary('a wrong checksum', wrongSum, 31, 'proxy-checksum'),
  badBinary('a checksum of three bytes', binary('2111', IPV4, '030003 000000'), 29),
  badBinary('two checksums', summed(binary('2111', IPV4, CHECKSUM, CHECKSUM)), 35),
  badBinary('4,097 bytes', binary('2111', IPV4, tlv(4, Buffer.alloc(4097 - 16 - 12 - 3))), 14, 'proxy-too-long'),
  badBinary('LOCAL, length 65535', hex(SIGNATURE, '2000 ffff'), 14, 'proxy-too-long'),
  badBinary('length 65535', hex(SIGNATURE, '2111 ffff', IPV4), 14, 'proxy-too-long')
]
