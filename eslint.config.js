'use strict'

const neostandard = require('neostandard')

module.exports = [
  ...neostandard({ ts: true, ignores: ['dist/', '.tap/'] }),
  {
    rules: {
      'no-return-assign': 'off', // return this.#text ??= format(...)
      'no-unmodified-loop-condition': 'off', // does not see what an event handler modifies
      'no-void': 'off' // void marks a promise that is deliberately not awaited
    }
  },
  {
    files: ['bench/**', 'examples/**', 'lib/cli/**'],
    // Text that a table or a drawing prints stays in one piece.
    rules: { '@stylistic/max-len': ['error', { code: 120, ignoreUrls: true, ignoreTemplateLiterals: false }] }
  }
]
