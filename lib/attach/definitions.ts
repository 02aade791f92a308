// The output of bpf/generate.ts for compiled programs.

/** A map, as BPF_MAP_CREATE takes it. */
export interface MapDefinition {
  readonly type: number
  readonly keySize: number
  readonly valueSize: number
  readonly maxEntries: number
  readonly flags: number
}

/** Each relocation: the index of an instruction that loads the address of a map; of `config`, of its value. */
export interface ProgramDefinition<MapName extends string> {
  readonly name: string
  readonly relocations: ReadonlyArray<readonly [instruction: number, map: MapName | 'config']>
  /** Base64 of struct bpf_insn, little-endian. */
  readonly instructions: string
}
