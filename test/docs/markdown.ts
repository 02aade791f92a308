import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'

export const project = dirname(require.resolve('fastify-real-ip/package.json'))

/** A fenced block. */
export interface Block {
  /** File and line of its first line of code. */
  readonly place: string
  readonly language: string
  /** What stands behind the language. */
  readonly mark: string
  readonly code: string
}

export interface Page {
  /** Relative to the project. */
  readonly path: string
  readonly text: string
  readonly blocks: readonly Block[]
  /** The text without its blocks, in which nothing is a link or a heading. */
  readonly prose: string
}

export function readPage (path: string): Page {
  const text = readFileSync(join(project, path), 'utf8')
  const blocks: Block[] = []
  const prose = text.replace(/^```(\w*) ?(.*)\n([^]*?)^```$/gm, (_fence, language: string, mark: string, code: string, at: number) => {
    blocks.push({ place: `${path}:${text.slice(0, at).split('\n').length + 1}`, language, mark, code })
    return ''
  })
  return { path, text, blocks, prose }
}

/** README.md first, the others beside it, and all of docs/. */
export function readPages (): Page[] {
  const docs = readdirSync(join(project, 'docs')).filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`)
  return ['README.md', 'SECURITY.md', 'CONTRIBUTING.md', 'CHANGELOG.md', ...docs].map(readPage)
}

/** The part of a page under a heading, to the next of the same level or a higher one. */
export function section ({ prose }: Page, heading: string): string {
  const lines = prose.split('\n')
  const from = lines.findIndex((line) => /^#+ /.test(line) && line.replace(/^#+ /, '') === heading)
  if (from < 0) throw new Error(`there is no heading '${heading}'`)
  const level = (lines[from] as string).indexOf(' ')
  const length = lines.slice(from + 1).findIndex((line) => /^#+ /.test(line) && line.indexOf(' ') <= level)
  return lines.slice(from + 1, length < 0 ? undefined : from + 1 + length).join('\n')
}

/** The cells of a table's rows by the code in their first cell: one entry for each code there. */
export function tableRows (text: string): Map<string, string[]> {
  const rows = new Map<string, string[]>()
  for (const line of text.split('\n')) {
    const cells = line.replaceAll('\\|', '\0').split('|').slice(1, -1).map((cell) => cell.replaceAll('\0', '|').trim())
    for (const [, code] of (cells[0] ?? '').matchAll(/`([^`]+)`/g)) rows.set(code as string, cells)
  }
  return rows
}

/** GitHub's name for a heading. */
const anchorOf = (heading: string) => heading.toLowerCase().replace(/[^\p{L}\p{N}\- _]/gu, '').replaceAll(' ', '-')

export const anchors = ({ prose }: Page): string[] =>
  [...prose.matchAll(/^#+ (.+)$/gm)].map(([, heading]) => anchorOf(heading as string))

/** The links of a page that lead nowhere, of those that stay within the project, or within what `isThere` tells. */
export function brokenLinks (page: Page, isThere = (path: string) => existsSync(join(project, path))): string[] {
  return [...page.prose.matchAll(/\]\(([^)\s]+)\)/g)].map(([, link]) => link as string).filter((link) => {
    if (/^https?:/.test(link)) return false
    const [path, anchor] = link.split('#') as [string, string?]
    const target = path === '' ? page.path : relative(project, join(project, dirname(page.path), path)).replaceAll('\\', '/')
    if (!isThere(target)) return true
    return anchor !== undefined && !anchors(readPage(target)).includes(anchor)
  })
}
