import { stripVTControlCharacters, styleText } from 'node:util'

export type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow'

/** The output; for a file or a pipe neither is set. */
export interface Terminal {
  readonly colours?: boolean | undefined
  readonly columns?: number | undefined
}

/** `colours` decides: Node.js 22.13 and later would also check this process's stdout. */
export function paint (style: Style, text: string, colours = false): string {
  return colours ? styleText(style, text, { validateStream: false }) : text
}

/** Wraps text to `columns` where possible. */
export function wrap (text: string, columns = Infinity): string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const line = lines.at(-1)
    if (line === undefined || width(line) + 1 + width(word) > columns) lines.push(word)
    else lines[lines.length - 1] = `${line} ${word}`
  }
  return lines
}

const width = (text: string): number => stripVTControlCharacters(text).length
