/** The parameters of one Forwarded element that are used, unquoted. */
export interface ForwardedElement {
  for?: string
  proto?: string
  host?: string
}

const [TAB, SPACE, QUOTE, COMMA, SEMICOLON, EQUALS, BACKSLASH] = [9, 0x20, 0x22, 0x2c, 0x3b, 0x3d, 0x5c]

const isTokenCode = new Uint8Array(256)
for (const char of "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz") {
  isTokenCode[char.charCodeAt(0)] = 1
}

/**
 * The elements of one line, `undefined` for each that is malformed: one ends at the next comma outside quotes, and an
 * open quote at the end of the line. RFC 7239 §4, RFC 9110 §5.6.2 and §5.6.4, with the optional whitespace of lists
 * around pairs. Scanning is three times as fast as a regular expression per pair.
 */
export function parseForwarded (line: string): Array<ForwardedElement | undefined> {
  const elements: Array<ForwardedElement | undefined> = []
  for (let at = skipSpace(line, 0); at < line.length; at = skipSpace(line, at + 1)) {
    if (line.charCodeAt(at) === COMMA) continue
    const element: ForwardedElement = {}
    const end = parseElement(line, at, element)
    elements.push(end < 0 ? undefined : element)
    at = end < 0 ? endOfElement(line, at) : end
  }
  return elements
}

/** The end of the element at `at`, a comma or the end of the line; -1 if it is malformed. */
function parseElement (line: string, at: number, element: ForwardedElement): number {
  for (let isFirst = true; ; isFirst = false) {
    if (at === line.length || line.charCodeAt(at) === COMMA) return at
    if (line.charCodeAt(at) === SEMICOLON) at = skipSpace(line, at + 1)
    else if (!isFirst) return -1
    at = parsePair(line, at, element)
    if (at < 0) return -1
  }
}

/** The offset after the pair at `at`, which can be empty, and after whitespace; -1 if it is malformed. */
function parsePair (line: string, at: number, element: ForwardedElement): number {
  const equals = endOfToken(line, at)
  if (equals === at) return at
  if (line.charCodeAt(equals) !== EQUALS) return -1
  const name = line.slice(at, equals).toLowerCase()
  const start = equals + 1
  const quoted = line.charCodeAt(start) === QUOTE
  const end = quoted ? endOfQuoted(line, start) : endOfToken(line, start)
  if (end <= start) return -1
  if (name === 'for' || name === 'proto' || name === 'host') {
    if (element[name] !== undefined) return -1
    element[name] = quoted ? unquote(line.slice(start + 1, end - 1)) : line.slice(start, end)
  }
  return skipSpace(line, end)
}

/** The next comma outside quotes, or the end of the line. */
function endOfElement (line: string, at: number): number {
  while (at >= 0 && at < line.length && line.charCodeAt(at) !== COMMA) {
    at = line.charCodeAt(at) === QUOTE ? endOfQuoted(line, at) : at + 1
  }
  return at < 0 ? line.length : at
}

function skipSpace (line: string, at: number): number {
  for (let code; (code = line.charCodeAt(at)) === SPACE || code === TAB;) at++
  return at
}

function endOfToken (line: string, at: number): number {
  while (isTokenCode[line.charCodeAt(at)] === 1) at++
  return at
}

/** The offset after the closing quote of the string at `start`; -1 if there is none. */
function endOfQuoted (line: string, start: number): number {
  for (let i = start + 1; i < line.length; i++) {
    const code = line.charCodeAt(i)
    if (code === QUOTE) return i + 1
    if (code === BACKSLASH) i++
  }
  return -1
}

const unquote = (text: string): string => text.includes('\\') ? text.replace(/\\([^])/g, '$1') : text
