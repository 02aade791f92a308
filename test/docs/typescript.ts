import { join } from 'node:path'
import ts from 'typescript'
import { project, type Block } from './markdown'

const options: ts.CompilerOptions = {
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  noImplicitOverride: true,
  module: ts.ModuleKind.NodeNext,
  target: ts.ScriptTarget.ES2022,
  types: ['node'],
  skipLibCheck: true,
  noEmit: true
}

/** What a block takes for granted when it does not begin at the beginning. */
function preludeOf (code: string): string {
  if (/from 'fastify'/.test(code)) return ''
  const plugin = /from 'fastify-real-ip'/.test(code) ? '' : "import realIp from 'fastify-real-ip'; "
  return `${plugin}declare const app: import('fastify').FastifyInstance; `
}

/** Compiles blocks, each as a module of its own in this package; the errors, with their places in the documents. */
export function compile (blocks: readonly Block[]): string[] {
  const files = new Map(blocks.map((block, i) => {
    // On the block's first line, so that lines keep their numbers.
    return [join(project, `block-${i}.mts`).replaceAll('\\', '/'), { block, text: preludeOf(block.code) + block.code + '\nexport {}\n' }]
  }))
  const host = ts.createCompilerHost(options)
  const { fileExists, readFile } = host
  host.fileExists = (path) => files.has(path) || fileExists(path)
  host.readFile = (path) => files.get(path)?.text ?? readFile(path)
  const program = ts.createProgram([...files.keys()], options, host)
  return ts.getPreEmitDiagnostics(program).map(({ file, start, messageText }) => {
    const message = ts.flattenDiagnosticMessageText(messageText, '\n')
    if (file === undefined || start === undefined) return message
    const { line } = file.getLineAndCharacterOfPosition(start)
    const block = files.get(file.fileName)?.block
    if (block === undefined) return `${file.fileName}:${line + 1} ${message}`
    const [path, first] = block.place.split(':') as [string, string]
    return `${path}:${Number(first) + line} ${message}`
  })
}

/** What the package's own sources say of themselves. */
export interface Declared {
  /** Each option with its default, where it has one. */
  readonly options: Map<string, string | undefined>
  readonly reasons: string[]
  /** The words of the docstring of an attempt's reason. */
  readonly attempts: string[]
  readonly warnings: string[]
  /** The members of `app.realIp`. */
  readonly realIp: string[]
  /** What requests have. */
  readonly request: string[]
}

export function readDeclarations (): Declared {
  const types = join(project, 'types/index.d.ts')
  const warnings = join(project, 'lib/warnings.ts')
  const program = ts.createProgram([types, warnings], { ...options, module: ts.ModuleKind.Node16 })
  const checker = program.getTypeChecker()

  const found = new Map<string, ts.InterfaceDeclaration | ts.TypeAliasDeclaration>()
  for (const path of [types, warnings]) {
    const collect = (node: ts.Node): void => {
      if (ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node)) found.set(node.name.text, node)
      ts.forEachChild(node, collect)
    }
    collect(program.getSourceFile(path) as ts.SourceFile)
  }
  const typeOf = (name: string) => checker.getTypeAtLocation(found.get(name) as ts.Node)
  const membersOf = (name: string) => {
    const declaration = found.get(name) as ts.InterfaceDeclaration
    return declaration.members.map(({ name }) => checker.getSymbolAtLocation(name as ts.PropertyName) as ts.Symbol)
  }
  const literalsOf = (name: string) => (typeOf(name) as ts.UnionType).types.map((type) => (type as ts.StringLiteralType).value)
  const documentation = (symbol: ts.Symbol) => ts.displayPartsToString(symbol.getDocumentationComment(checker))

  const given = new Map<string, string | undefined>()
  const add = (name: string, prefix: string) => {
    for (const symbol of membersOf(name)) {
      const tag = symbol.getJsDocTags(checker).find(({ name }) => name === 'default')
      given.set(prefix + symbol.name, tag && ts.displayPartsToString(tag.text))
    }
  }
  add('FastifyRealIpOptions', '')
  add('ForwardedOptions', 'forwarded.')
  add('ProxyProtocolOptions', 'proxyProtocol.')

  const sources = literalsOf('KernelSource')
  const [reason] = membersOf('Attempt').filter(({ name }) => name === 'reason') as [ts.Symbol]
  return {
    options: given,
    reasons: literalsOf('Reason'),
    attempts: [...documentation(reason).matchAll(/'([A-Za-z-]+)'/g)].map(([, word]) => word as string).filter((word) => !sources.includes(word)),
    warnings: literalsOf('WarningCode').map((code) => `FST_REAL_IP_${code}`),
    realIp: membersOf('RealIp').map(({ name }) => name),
    request: membersOf('FastifyRequest').map(({ name }) => name)
  }
}
