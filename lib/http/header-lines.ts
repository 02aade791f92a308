/** The values of a header, last line first. `name` is in lower case. */
export function * linesFromLast (rawHeaders: ReadonlyArray<string>, name: string): Iterable<string> {
  for (let i = rawHeaders.length - 2; i >= 0; i -= 2) {
    const header = rawHeaders[i] as string
    if (header.length === name.length && header.toLowerCase() === name) yield rawHeaders[i + 1] as string
  }
}
