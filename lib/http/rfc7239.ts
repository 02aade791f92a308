/** The parameters of one element of a Forwarded header that are of use here, unquoted. */
export interface ForwardedElement {
  for?: string
  proto?: string
  host?: string
}

// RFC 7239 §4, RFC 9110 §5.6.2 and §5.6.4: token = (token or quoted-string), with the space around it that lists allow.
const pair = /[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)|"((?:[^"\\]|\\.)*)")[ \t]*([;,]|$)/y
const empty = /[ \t]*(?:,|$)/y

/** The elements of one line; undefined if it is malformed. */
export function parseForwarded (line: string): ForwardedElement[] | undefined {
  const elements: ForwardedElement[] = []
  let at = 0
  let element: ForwardedElement = {}
  let open = false
  while (at < line.length) {
    pair.lastIndex = at
    const match = pair.exec(line)
    if (match === null) {
      empty.lastIndex = at
      if (open || !empty.test(line)) return undefined
      at = empty.lastIndex
      continue
    }
    at = pair.lastIndex
    const [, name, token, quoted, end] = match as unknown as [string, string, string?, string?, string?]
    const parameter = name.toLowerCase()
    if (parameter === 'for' || parameter === 'proto' || parameter === 'host') {
      if (element[parameter] !== undefined) return undefined
      element[parameter] = token ?? (quoted as string).replace(/\\(.)/g, '$1')
    }
    open = end === ';'
    if (!open) {
      elements.push(element)
      element = {}
    }
  }
  return open ? undefined : elements
}
