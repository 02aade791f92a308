import { styleText } from 'node:util'

export type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow'

/** What the output goes to; neither for a file or a pipe. */
export interface Terminal {
  readonly colours?: boolean | undefined
  readonly columns?: number | undefined
}

/** `colours` decides alone: Node.js 22.13 and later would look at this process's stdout too. */
export function paint (style: Style, text: string, colours: boolean): string {
  return colours ? styleText(style, text, { validateStream: false }) : text
}
