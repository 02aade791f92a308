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
  }
]
