import { stripVTControlCharacters, styleText } from 'node:util'

export type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow'

/** What the output goes to; neither for a file or a pipe. */
export interface Terminal {
  readonly colours?: boolean | undefined
  readonly columns?: number | undefined
}

/** `colours` decides alone: Node.js 22.13 and later would look at this process's stdout too. */
export function paint (style: Style, text: string, colours = false): string {
  return colours ? styleText(style, text, { validateStream: false }) : text
}

/** Lines of at most so many columns, where the words allow it. */
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
