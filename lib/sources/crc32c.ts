// CRC32C (RFC 4960, Appendix B). crc32() of node:zlib uses another polynomial.
const POLYNOMIAL = 0x82f63b78

const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? crc >>> 1 ^ POLYNOMIAL : crc >>> 1
  return crc
})

/** CRC32C of the first `length` bytes, unsigned. The four bytes at `checksum`, where it is stored, count as zero. */
export function crc32c (bytes: Uint8Array, length: number, checksum: number): number {
  let crc = -1
  for (let at = 0; at < length; at++) {
    const byte = at >= checksum && at < checksum + 4 ? 0 : bytes[at] as number
    crc = crc >>> 8 ^ (table[(crc ^ byte) & 0xff] as number)
  }
  return ~crc >>> 0
}
