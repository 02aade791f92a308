'use strict'

const neostandard = require('neostandard')

// Imports point down: each room may import those before it, and types, errors and warnings. Rooms of one list do not
// import each other.
const rooms = [['node', 'address'], ['options', 'kernel'], ['sources'], ['trust'], ['http'], ['attach'], ['cli']]

/** For each room, what it may not import. */
function orderOf (names, height) {
  const above = rooms.slice(height + 1).flat()
  return names.map((name) => {
    const forbidden = [...above, ...names.filter((other) => other !== name)]
    return {
      files: [`lib/${name}/**/*.ts`],
      rules: {
        'no-restricted-imports': ['error', {
          paths: name === 'kernel' ? [] : [koffi],
          patterns: [{
            regex: `^(\\.\\./)+((${forbidden.join('|')})/|plugin$|index$|testing$)`,
            message: 'Imports point down only: docs/architecture.md has the order of the rooms.'
          }]
        }]
      }
    }
  })
}

const koffi = { name: 'koffi', message: 'Only lib/kernel/libc.ts loads koffi.' }

module.exports = [
  ...neostandard({ ts: true, ignores: ['dist/', '.tap/'] }),
  {
    rules: {
      'no-return-assign': 'off', // return this.#text ??= format(...)
      'no-unmodified-loop-condition': 'off', // does not see what an event handler modifies
      'no-void': 'off' // void marks a promise that is deliberately not awaited
    }
  },
  ...rooms.flatMap(orderOf),
  {
    files: ['lib/**/*.ts'],
    ignores: ['lib/node/sockets.ts'],
    rules: {
      'no-restricted-syntax': ['error', {
        selector: 'MemberExpression[property.name=/^_(handle|parent)$/], Property[key.name=/^_(handle|parent)$/]',
        message: 'Only lib/node/sockets.ts touches what Node.js has no public name for.'
      }]
    }
  },
  {
    files: ['lib/**', 'types/**', 'bench/**', 'examples/**', 'bpf/**'],
    ignores: ['lib/attach/programs.ts'], // generated
    rules: { '@stylistic/max-len': ['error', { code: 120 }] }
  },
  {
    files: ['bench/**'],
    // What is drawn and written there is in templates.
    rules: { '@stylistic/max-len': ['error', { code: 120, ignoreTemplateLiterals: true }] }
  }
]
