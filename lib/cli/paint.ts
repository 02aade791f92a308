export type Style = 'bold' | 'dim' | 'red' | 'green' | 'yellow'

/** What the output goes to; neither for a file or a pipe. */
export interface Terminal {
  readonly colours?: boolean | undefined
  readonly columns?: number | undefined
}

const codes: Record<Style, [on: number, off: number]> = {
  bold: [1, 22], dim: [2, 22], red: [31, 39], green: [32, 39], yellow: [33, 39]
}

export function paint (style: Style, text: string, colours: boolean): string {
  const [on, off] = codes[style]
  return colours ? `\x1b[${on}m${text}\x1b[${off}m` : text
}
