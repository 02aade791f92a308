// _http_common.js: two entries of `rawHeaders` a line.
const KEPT = 2000

/**
 * Whether Node.js may have dropped the last lines of an HTTP/1 request, where proxies append theirs. It keeps about
 * `server.maxHeadersCount` lines, 1,000 by default; newer versions answer 431.
 */
export function isCutShort (rawHeaders: ReadonlyArray<string>, socket: unknown): boolean {
  const { maxHeadersCount } =
    (socket as { readonly server?: { readonly maxHeadersCount?: number | null } } | undefined)?.server ?? {}
  const kept = typeof maxHeadersCount === 'number' ? maxHeadersCount * 2 : KEPT
  return kept > 0 && rawHeaders.length >= kept
}

/** The values of a header, last line first. `name` is in lower case. */
export function * linesFromLast (rawHeaders: ReadonlyArray<string>, name: string): Iterable<string> {
  for (let i = rawHeaders.length - 2; i >= 0; i -= 2) {
    const header = rawHeaders[i] as string
    if (header.length === name.length && header.toLowerCase() === name) yield rawHeaders[i + 1] as string
  }
}
